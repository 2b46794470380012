"""AutoSeM on the sample and on GLUE rows: `python study.py sample | glue --root FOLDER | report`.

`sample` and `glue` run cells, which are found again when they are there; `report` writes results.json, results.md and
the figures beside this file from what has finished. All artifacts lie under --output.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from fastmtl import compose
from fastmtl.bandit import BetaBernoulli, priors
from fastmtl.pipeline import Experiment
from fastmtl.reporting.figures import posteriors

KIN = {"farm": "related", "harbor": "related", "answers": "40 % related", "gossip": "contradicting"}
"""What the sample's tasks are to its primary; the others are unrelated."""
SAMPLE = [
    "data=sample", "encoder=minilm", "encoder.learning_rate=2e-4", "protocol.holdout=0.3", "selection=autosem",
    "bandit.rounds=60", "bandit.fit.batch_size=16",
]  # fmt: skip
GLUE = [
    "data=glue_local", "data.tasks=[mnli,rte,qqp,qnli,mrpc,sst2,cola,stsb,wnli]", "data.rows_per_task=640",
    "encoder=minilm", "encoder.max_length=64", "protocol.holdout=0.2", "budget=600", "bandit.rounds=60",
    "bandit.fit.batch_size=16", "bandit.fit.freeze_layers=3", "multitask.fit.freeze_layers=3",
    "finetune.fit.freeze_layers=3", "multitask.fit.epochs=1", "finetune.fit.epochs=2",
]  # fmt: skip
SEARCH = ["hparams_search.trials=8", "hparams_search.random_starts=3"]
ARMS = {
    "none": ["selection=none"],
    "random, proportional": ["selection=random"],
    "AutoSeM, stage 1 alone (1:...:1)": ["selection=autosem", "hparams_search=autosem_equal"],
    "AutoSeM": ["selection=autosem", *SEARCH],
}
"""What every primary is run with."""
ABLATIONS = {
    "without stage 1: search over all tasks": ["selection=random", "hparams_search=autosem_mixing", *SEARCH],
    "without stage 2: grid of as many ratios": ["selection=autosem", "hparams_search=autosem_grid",
                                               "hparams_search.trials=8"],
    "hand-picked: QQP": ["selection=hand_picked", "selection.selector.tasks=[qqp]",
                         "hparams_search=autosem_mixing", *SEARCH],
    "hand-picked: QQP + MNLI": ["selection=hand_picked", "selection.selector.tasks=[qqp,mnli]",
                                "hparams_search=autosem_mixing", *SEARCH],
}  # fmt: skip
"""Those of the paper's Table 2, for MRPC."""
PAPER = {
    "rte": {"tasks and ratio": "QQP, MNLI 1:5:5", "test": "54.0 -> 58.7", "validation": "58.6 -> 62.0"},
    "mrpc": {"tasks and ratio": "RTE, MNLI 9:1:4", "test": "75.7/83.7 -> 78.5/84.5", "validation": "78.3 -> 81.1"},
}
"""Baseline and AutoSeM, accuracy (MRPC's test: accuracy/F1): Guo et al. 2019, section 5.2 and Tables 1 and 3."""


def sample_cell(seed: int, output: Path) -> Experiment:
    return compose(*SAMPLE, f"seed={seed}", f"paths.output={output}")


def glue_cell(primary: str, arm: list[str], seed: int, root: Path, output: Path) -> Experiment:
    return compose(*GLUE, f"data.root={root}", f"primary={primary}", f"seed={seed}", f"paths.output={output}", *arm)


def told(exp: Experiment) -> dict[str, Any]:
    """The bandit's utilities and rounds."""
    assert exp.utilities is not None
    return {**exp.utilities.read("bandit.json"), "wall_s": exp.utilities.records["wall_s"]}


def best_two(bandit: dict[str, Any]) -> list[str]:
    auxiliary = {name: value for name, value in bandit["utilities"].items() if name != bandit["arms"][0]}
    return sorted(auxiliary, key=lambda name: -auxiliary[name])[:2]


def sample_table(bandits: dict[int, dict[str, Any]]) -> str:
    """Utilities on the sample by seed, and how often the best two tasks are the related ones."""
    names = [*KIN, *(name for name in bandits[min(bandits)]["arms"][1:] if name not in KIN)]
    rows, wins = [], 0
    for seed, bandit in bandits.items():
        best = best_two(bandit)
        wins += all("related" in KIN.get(name, "") for name in best)
        cells = [f"**{bandit['utilities'][n]:.2f}**" if n in best else f"{bandit['utilities'][n]:.2f}" for n in names]
        rows.append([seed, f"{bandit['utilities']['kitchen']:.2f}", *cells, f"{bandit['wall_s']:.0f}"])
    heads = [f"{name} ({KIN.get(name, 'unrelated')})" for name in names]
    table = tabulate(rows, ["seed", "kitchen (primary)", *heads, "s"], tablefmt="github", disable_numparse=True)
    return f"{table}\n\nThe best two (bold) are related tasks in {wins} of {len(bandits)} seeds."


def rates(bandits: list[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Names (K,) and success rates (K,) of all arms over all seeds' rounds, with one success and failure added."""
    played, won = Counter[str](), Counter[str]()
    for bandit in bandits:
        for one in bandit["rounds"][1:]:
            played[one["arm"]] += 1
            won[one["arm"]] += one["reward"]
    names = bandits[0]["arms"]
    return names, np.array([(won[name] + 1) / (played[name] + 2) for name in names])


def defaults_table(bandits: list[dict[str, Any]], runs: int = 1000, rounds: int = 200) -> str:
    """How often policies find the two tasks of highest rate, if the sample's measured rates were the true ones."""
    names, rate = rates(bandits)
    truly = set(np.argsort(-rate[1:])[:2] + 1)
    rows = []
    for decay in (0.0, 0.01, 0.03, 0.1, 0.3):
        for primary in ((1, 1), (2, 1), (5, 1), (10, 1)):
            if primary != (2, 1) and decay != 0.01:
                continue
            rng = np.random.default_rng(0)
            found, share = 0, 0
            for _ in range(runs):
                bandit = BetaBernoulli(*priors(len(names), primary_prior=primary), decay)
                for _ in range(rounds):
                    arm = bandit.choose(rng)
                    share += arm == 0
                    bandit.update(arm, float(rng.random() < rate[arm]))
                found += set(np.argsort(-bandit.utilities()[1:])[:2] + 1) == truly
            rows.append([decay, f"{primary[0]}, {primary[1]}", f"{100 * found / runs:.0f} %",
                         f"{100 * share / runs / rounds:.0f} %"])  # fmt: skip
    heads = ["decay", "primary prior", "best two found", "rounds on the primary"]
    measured = ", ".join(f"{name} {value:.2f}" for name, value in sorted(zip(names, rate), key=lambda one: -one[1]))
    return f"Measured rates: {measured}.\n\n{tabulate(rows, heads, tablefmt='github', disable_numparse=True)}"


def glue_rows(primary: str, cells: dict[str, Experiment]) -> list[list[Any]]:
    rows = []
    for arm, exp in cells.items():
        fit, metrics = exp.finetune.read("fit.json"), exp.finetune.read("metrics.json")
        validation = {name: 100 * value for name, value in metrics["validation"].items() if name != "loss"}
        counts = exp.selection.read("counts.json")
        chosen = [name for name, count in counts.items() if count]
        ratio = ":".join(map(str, exp.mixing.read("mixing.json")["ratio"])) if exp.mixing else ""
        spent = [a for a in exp.artifacts() if a.stage != "pool"]
        rows.append([
            primary, arm, ", ".join(chosen) if len(chosen) < 8 else "all", ratio,
            f"{100 * fit['epochs'][fit['best_epoch']]['accuracy']:.1f}",
            " / ".join(f"{validation[name]:.1f}" for name in ("accuracy", "f1") if name in validation),
            f"{sum(a.records['wall_s'] for a in spent):.0f}",
            f"{sum(a.records.get('flops', 0) for a in spent) / 1e12:.1f}",
        ])  # fmt: skip
    return rows


def finished(exp: Experiment) -> bool:
    """Whether the cell's results are there, so that asking for them trains nothing."""
    try:
        return exp.store.find("finetune", exp._finetune_identity(exp.multitask)) is not None
    except _Missing:
        return False


class _Missing(Exception):
    pass


def _only_find(exp: Experiment) -> Experiment:
    def get(stage: str, identity: Any, build: Any) -> Any:
        if (found := exp.store.find(stage, identity)) is None:
            raise _Missing(stage)
        return found

    exp.store.get = get  # type: ignore[method-assign]
    return exp


def report(output: Path, root: Path | None, out: Path, seeds: range) -> None:
    parts: list[str] = []
    kept: dict[str, Any] = {"sample": SAMPLE, "glue": GLUE}
    bandits: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        try:
            bandits[seed] = told(_only_find(sample_cell(seed, output / "sample")))
        except _Missing:
            continue
    if bandits:
        kept["sample_bandits"] = bandits
        parts += ["## The sample: utility of each task", sample_table(bandits)]
        parts += ["## Decay and the primary's prior", defaults_table(list(bandits.values()))]
    rows, utilities = [], []
    for primary in ("rte", "mrpc") if root else ():
        assert root is not None
        cells = {}
        for arm, overrides in {**ARMS, **(ABLATIONS if primary == "mrpc" else {})}.items():
            exp = _only_find(glue_cell(primary, overrides, 0, root, output / "glue"))
            if finished(exp):
                cells[arm] = exp
        rows += glue_rows(primary, cells)
        if "AutoSeM" in cells:
            exp = cells["AutoSeM"]
            bandit = told(exp)
            assert exp.mixing is not None
            kept[primary] = {"bandit": bandit, "mixing": exp.mixing.read("mixing.json")}
            plays = Counter(one["arm"] for one in bandit["rounds"])
            utilities.append([primary, *(f"{bandit['utilities'][n]:.2f} ({plays[n]})" for n in sorted(bandit["arms"]))])
            names = sorted(bandit["arms"])
            figure = posteriors(bandit)
            figure.savefig(out / f"posteriors_{primary}.svg", metadata={"Date": None})
    if rows:
        heads = ["primary", "arm", "auxiliary tasks", "ratio", "held-out accuracy", "validation", "total s", "TFLOP"]
        parts += ["## GLUE rows", tabulate(rows, heads, tablefmt="github", disable_numparse=True)]
        kept["glue_rows"] = rows
    if utilities:
        parts += ["## Utilities (rounds played)",
                  tabulate(utilities, ["primary", *names], tablefmt="github", disable_numparse=True)]  # fmt: skip
        paper = [[name, *values.values()] for name, values in PAPER.items()]
        parts += ["## The paper", tabulate(paper, ["primary", *PAPER["rte"]], tablefmt="github")]
    (out / "results.json").write_text(json.dumps(kept, indent=1) + "\n")
    (out / "results.md").write_text("\n\n".join(parts) + "\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("sample", "glue", "ablations", "report"))
    parser.add_argument("--root", type=Path, help="folder of GLUE as Parquet, for glue, ablations and report")
    parser.add_argument("--output", type=Path, default=Path("outputs/autosem"))
    parser.add_argument("--out", type=Path, default=here, help="where results go")
    parser.add_argument("--seeds", type=int, default=5, help="of the sample")
    parser.add_argument("--primaries", nargs="+", default=["rte", "mrpc"])
    given = parser.parse_args()
    if given.part in ("glue", "ablations") and given.root is None:
        parser.error(f"{given.part} needs --root, a folder of GLUE as Parquet files")
    if given.part == "sample":
        for seed in range(given.seeds):
            told(sample_cell(seed, given.output / "sample"))
    elif given.part == "glue":
        for primary in given.primaries:
            for arm in reversed(ARMS.values()):
                glue_cell(primary, arm, 0, given.root, given.output / "glue").artifacts()
    elif given.part == "ablations":
        for arm in ABLATIONS.values():
            glue_cell("mrpc", arm, 0, given.root, given.output / "glue").artifacts()
    else:
        report(given.output, given.root, given.out, range(given.seeds))
