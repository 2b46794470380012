"""AutoSeM on the sample and on GLUE rows: `python study.py sample | glue --root FOLDER | report | all`.

`sample` and `glue` run cells, which are found again when they are there; `report` adds what has finished to
results.json and writes results.md and the figures beside this file from all that is in there. All artifacts lie under
--output. `--scale smoke` does all of it on a few generated rows, and reports under --output.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from fastmtl import compose
from fastmtl.bandit import BetaBernoulli, Reward, priors
from fastmtl.pipelines.experiment import Experiment
from fastmtl.reporting.figures import draw_bandit
from fastmtl.reporting.plots import save
from fastmtl.store import MANIFEST

KIN = {"mails": "related", "calls": "related", "forum": "related", "floors": "40 % related", "bot": "random labels"}
"""What the sample's tasks are to its primary; the others are unrelated."""
SAMPLE = ["data=sample", "encoder=minilm", "selection=autosem", "bandit.rounds=80"]
RUNS: dict[str, tuple[list[str], range]] = {
    "as by default": ([], range(20, 25)),
    "without episodes": (["bandit.policy.episode=null"], range(20, 25)),
}
"""Overrides and seeds; the defaults were found on others, but for trials of shorter rounds on seed 20."""
GLUE = [
    "data=glue_local", "data.tasks=[mnli,rte,qqp,qnli,mrpc,sst2,cola,stsb,wnli]", "data.rows_per_task=640",
    "encoder=minilm", "encoder.max_length=64", "protocol.holdout=0.2", "budget=600", "bandit.rounds=60",
    "bandit.holdout=0.2", "bandit.policy.warmup_rounds=0", "bandit.policy.episode=null",
    "bandit.policy.reward=not_worse_than_previous", "bandit.fit.batch_size=16",
    "bandit.fit.freeze_layers=3",
    "multitask.fit.freeze_layers=3", "finetune.fit.freeze_layers=3", "multitask.fit.epochs=1",
    "finetune.fit.epochs=2",
]  # fmt: skip
SEARCH = ["mixing.trials=8", "mixing.random_starts=3"]
ARMS = {
    "none": ["selection=none"],
    "random, proportional": ["selection=random"],
    "AutoSeM, stage 1 alone (1:...:1)": ["selection=autosem", "mixing=autosem_equal"],
    "AutoSeM": ["selection=autosem", "mixing=autosem_mixing", *SEARCH],
}
"""What every primary is run with."""
ABLATIONS = {
    "without stage 1: search over all tasks": ["selection=random", "mixing=autosem_mixing", *SEARCH],
    "without stage 2: grid of as many ratios": ["selection=autosem", "mixing=autosem_grid",
                                               "mixing.trials=8"],
    "hand-picked: QQP": ["selection=hand_picked", "selection.selector.tasks=[qqp]",
                         "mixing=autosem_mixing", *SEARCH],
    "hand-picked: QQP + MNLI": ["selection=hand_picked", "selection.selector.tasks=[qqp,mnli]",
                                "mixing=autosem_mixing", *SEARCH],
}  # fmt: skip
"""Those of the paper's Table 2, for MRPC."""
SMOKE = ["debug=smoke", "bandit.policy.batches_per_round=1", "bandit.policy.warmup_rounds=1", "bandit.fit.batch_size=4"]
PAPER = {
    "rte": {"tasks and ratio": "QQP, MNLI 1:5:5", "test": "54.0 -> 58.7", "validation": "58.6 -> 62.0"},
    "mrpc": {"tasks and ratio": "RTE, MNLI 9:1:4", "test": "75.7/83.7 -> 78.5/84.5", "validation": "78.3 -> 81.1"},
}
"""Baseline and AutoSeM, accuracy (MRPC's test: accuracy/F1): Guo et al. 2019, section 5.2 and Tables 1 and 3."""


SIMULATIONS = 500
"""Simulations of a policy: shares have a standard error of two points at most."""


def sample_cell(overrides: list[str], seed: int, output: Path) -> Experiment:
    return compose(*SAMPLE, *overrides, f"seed={seed}", f"paths.output={output}")


def glue_cell(primary: str, arm: list[str], base: list[str], output: Path) -> Experiment:
    return compose(*base, f"primary={primary}", f"paths.output={output}", *arm)


def arms(primary: str) -> dict[str, list[str]]:
    return {**ARMS, **(ABLATIONS if primary == "mrpc" else {})}


def told(exp: Experiment) -> dict[str, Any]:
    """The bandit's utilities and rounds."""
    utilities = exp.utilities()
    assert utilities is not None
    bandit = utilities.read("bandit.json")
    for one in bandit["rounds"]:
        one |= {name: [round(value, 3) for value in one[name]] for name in ("alpha", "beta")}
    return {**bandit, "wall_s": utilities.records["wall_s"]}


def best_two(bandit: dict[str, Any]) -> list[str]:
    auxiliary = {name: value for name, value in bandit["utilities"].items() if name != bandit["arms"][0]}
    return sorted(auxiliary, key=lambda name: -auxiliary[name])[:2]


def both_related(bandit: dict[str, Any]) -> bool:
    """Whether the best two auxiliary tasks are, wholly or in part, the primary's job in other settings."""
    return all("related" in KIN.get(name, "") for name in best_two(bandit))


def sample_table(bandits: dict[str, dict[str, Any]]) -> str:
    """Utilities on the sample by seed, and how often the best two tasks are the related ones."""
    primary, *names = next(iter(bandits.values()))["arms"]
    names.sort(key=lambda name: [*KIN, name].index(name))
    rows = []
    for seed, bandit in bandits.items():
        best = best_two(bandit)
        cells = [f"**{bandit['utilities'][n]:.2f}**" if n in best else f"{bandit['utilities'][n]:.2f}" for n in names]
        rows.append([seed, f"{bandit['utilities'][primary]:.2f}", *cells, f"{bandit['reference']:.2f}",
                     f"{bandit['wall_s']:.0f}"])  # fmt: skip
    heads = [f"{name} ({KIN.get(name, 'unrelated')})" for name in names]
    table = tabulate(
        rows, ["seed", f"{primary} (primary)", *heads, "value after the warm-up", "s"], tablefmt="github",
        disable_numparse=True,
    )  # fmt: skip
    wins = sum(map(both_related, bandits.values()))
    return f"{table}\n\nThe best two (bold) are related tasks in {wins} of {len(bandits)} seeds."


def rewards(bandits: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Task -> its rewards in all seeds' rounds."""
    told: dict[str, list[float]] = {name: [] for name in bandits[0]["arms"]}
    for bandit in bandits:
        for one in bandit["rounds"]:
            told[one["arm"]] += [one["reward"]] * (one["reward"] is not None)
    return told


def defaults_table(bandits: list[dict[str, Any]]) -> str:
    """How often a policy's best two are both related if each round draws one of the rewards that its task had."""
    told = rewards(bandits)
    names = [name for name, seen in told.items() if seen]
    rows = []
    for decay in (0.0, 0.01, 0.03, 0.1, 0.3):
        for primary in ((1, 1), (2, 1), (5, 1), (10, 1)):
            if primary != (2, 1) and decay != 0.01:
                continue
            shown = [decay, f"{primary[0]}, {primary[1]}"]
            for rounds in (40, 80, 200):
                rng = np.random.default_rng(0)
                found = share = 0
                for _ in range(SIMULATIONS):
                    bandit = BetaBernoulli(*priors(len(names), primary_prior=primary), decay)
                    for _ in range(rounds):
                        arm = bandit.choose(rng)
                        share += arm == 0
                        bandit.update(arm, float(rng.choice(told[names[arm]])))
                    utilities = dict(zip(names, bandit.utilities().tolist()))
                    found += both_related({"arms": names, "utilities": utilities})
                shown.append(f"{100 * found / SIMULATIONS:.0f} % ({100 * share / SIMULATIONS / rounds:.0f} %)")
            rows.append(shown)
    heads = ["decay", "primary prior", "40 rounds", "80 rounds", "200 rounds"]
    mean = {name: float(np.mean(told[name])) for name in names}
    measured = ", ".join(
        f"{name} {mean[name]:.2f} ({len(told[name])})" for name in sorted(mean, key=lambda n: -mean[n])
    )
    return (
        f"Mean reward (rounds): {measured}.\n\nBest two related, by {SIMULATIONS} simulations (and share of rounds on "
        f"the primary):\n\n{tabulate(rows, heads, tablefmt='github', disable_numparse=True)}"
    )


def replay_table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """How often the best two are both related if the same rounds had been rewarded otherwise, or remembered longer."""
    rows = []
    for reward in ("not_worse_than_previous", "graded"):
        for decay in (0.0, 0.01):
            wins = []
            for bandits in runs.values():
                won = sum(both_related(replayed(bandit, reward, decay)) for bandit in bandits)
                wins.append(f"{won} of {len(bandits)}")
            rows.append([reward, decay, *wins])
    return tabulate(rows, ["reward", "decay", *runs], tablefmt="github", disable_numparse=True)


def replayed(told: dict[str, Any], reward: str, decay: float) -> dict[str, Any]:
    """The same rounds under another reward."""
    bandit, judge = BetaBernoulli(*priors(len(told["arms"]), primary_prior=(2, 1)), decay), Reward(reward)
    judge.reference = told["reference"]
    for one in told["rounds"]:
        if (value := judge(one["value"])) is not None:
            bandit.update(told["arms"].index(one["arm"]), value)
        if one.get("back"):
            judge.reference = told["reference"]
    return {**told, "utilities": dict(zip(told["arms"], bandit.utilities().tolist()))}


def glue_row(primary: str, arm: str, exp: Experiment) -> list[Any]:
    spent = [artifact for artifact in exp.artifacts() if artifact.kind != "pool"]
    fit, metrics, mixing = exp.finetune().read("fit.json"), exp.finetune().read("metrics.json"), exp.mixing()
    chosen = [name for name, count in exp.selection().read("counts.json").items() if count]
    return [
        primary, arm, ", ".join(chosen),
        ":".join(map(str, mixing.read("mixing.json")["ratio"])) if mixing else "",
        f"{100 * fit['epochs'][fit['best_epoch']]['accuracy']:.1f}",
        " / ".join(f"{100 * metrics['validation'][name]:.1f}" for name in ("accuracy", "f1")
                   if name in metrics["validation"]),
        f"{sum(artifact.records['wall_s'] for artifact in spent):.0f}",
        f"{sum(artifact.records.get('flops', 0) for artifact in spent) / 1e12:.1f}",
    ]  # fmt: skip


class _Missing(Exception):
    """A stage that has not been computed."""


def _only_find(exp: Experiment) -> Experiment:
    """The experiment, which now raises instead of computing anything."""

    def get(kind: str, key: str, identity: Any, build: Any, needs: str = MANIFEST) -> Any:
        if (found := exp.store.find(kind, key, needs)) is None:
            raise _Missing(kind)
        return found

    exp.store.get = get  # type: ignore[method-assign]
    return exp


def report(output: Path, base: list[str], primaries: list[str], out: Path) -> None:
    """Tables, figures and numbers of all that has finished, here or before."""
    out.mkdir(parents=True, exist_ok=True)
    before = out / "results.json"
    kept: dict[str, Any] = json.loads(before.read_text()) if before.exists() else {}
    kept = {"bandits": {}, "mixing": {}, "arms": [], **kept, "sample": SAMPLE, "glue": GLUE}
    bandits, mixing = kept["bandits"], kept["mixing"]
    for name, (overrides, seeds) in RUNS.items():
        for seed in seeds:
            with suppress(_Missing):
                cell = _only_find(sample_cell(overrides, seed, output / "sample"))
                bandits.setdefault(f"sample, {name}", {})[str(seed)] = told(cell)
    for primary in primaries:
        for arm, overrides in arms(primary).items():
            exp = _only_find(glue_cell(primary, overrides, base, output / "glue"))
            with suppress(_Missing):
                row = glue_row(primary, arm, exp)
                kept["arms"] = [*(one for one in kept["arms"] if one[:2] != row[:2]), row]
                if arm == "AutoSeM":
                    bandits[primary], mixing[primary] = told(exp), exp.mixing().read("mixing.json")
    parts: list[str] = []
    sample = {name: found for name in RUNS if (found := bandits.get(f"sample, {name}"))}
    for name, found in sample.items():
        parts += [f"## The sample: utility of each task after {rounds_of(found)} rounds, {name}", sample_table(found)]
    if sample:
        runs = {name: list(found.values()) for name, found in sample.items()}
        parts += ["## The same rounds under other rewards: the best two are related", replay_table(runs)]
        parts += ["## Decay and the primary's prior", defaults_table(next(iter(runs.values())))]
        shown = next(iter(runs.values()))[0]
        chosen = [name for name, value in shown["utilities"].items() if value > 0.5]
        save(draw_bandit(shown, chosen), out / "posteriors_sample.svg")
    if kept["arms"]:
        heads = ["primary", "arm", "auxiliary tasks", "ratio", "held-out accuracy", "validation", "total s", "TFLOP"]
        parts += ["## GLUE rows", tabulate(kept["arms"], heads, tablefmt="github", disable_numparse=True)]
    if mixing:
        utilities = {primary: bandits[primary] for primary in mixing}
        names = sorted(next(iter(utilities.values()))["arms"])
        parts += ["## Utility of each task (rounds played)", utility_table(utilities, names)]
        for primary, bandit in utilities.items():
            parts += [f"## Every trial, {primary}", trial_table(mixing[primary])]
            save(draw_bandit(bandit, mixing[primary]["tasks"][1:]), out / f"posteriors_{primary}.svg")
        paper = [[name, *values.values()] for name, values in PAPER.items()]
        parts += ["## The paper", tabulate(paper, ["primary", *PAPER["rte"]], tablefmt="github")]
    before.write_text(json.dumps(kept) + "\n")
    (out / "results.md").write_text("\n\n".join(parts) + "\n")
    print("\n\n".join(parts))


def rounds_of(bandits: dict[str, dict[str, Any]]) -> int:
    return len(next(iter(bandits.values()))["rounds"])


def utility_table(utilities: dict[str, dict[str, Any]], names: list[str]) -> str:
    rows = []
    for primary, bandit in utilities.items():
        plays = Counter(one["arm"] for one in bandit["rounds"])
        rows.append([primary, *(f"{bandit['utilities'][name]:.2f} ({plays[name]})" for name in names)])
    return tabulate(rows, ["primary", *names], tablefmt="github", disable_numparse=True)


def trial_table(mixing: dict[str, Any]) -> str:
    rows = [
        [
            ":".join(map(str, one["ratio"])),
            "" if one["value"] is None else f"{100 * one['value']:.1f}",
            f"{one['wall_s']:.0f}",
            f"{one['ask_s']:.2f}",
        ]
        for one in mixing["trials"]
    ]
    heads = [":".join(mixing["tasks"]), "held-out headline x100", "s", "s to propose"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def smoke() -> None:
    """The study becomes one of seconds."""
    global SAMPLE, GLUE, RUNS, ARMS, ABLATIONS, SIMULATIONS
    SAMPLE, GLUE, SIMULATIONS = [*SMOKE, "selection=autosem"], [*SMOKE, "bandit.rounds=3"], 3
    RUNS, ABLATIONS = {"3 rounds": (["bandit.rounds=3"], range(2)), "4 rounds": (["bandit.rounds=4"], range(2))}, {}
    ARMS = {"none": ["selection=none"], "AutoSeM": ["selection=autosem", "mixing=autosem_mixing", "mixing.trials=2"]}


def main(part: str, output: Path, base: list[str], primaries: list[str], out: Path) -> None:
    if part == "all":
        for one in ("sample", "glue", "report"):
            main(one, output, base, primaries, out)
    elif part == "sample":
        for overrides, seeds in RUNS.values():
            for seed in seeds:
                told(sample_cell(overrides, seed, output / "sample"))
    elif part == "glue":
        for primary in primaries:
            for overrides in arms(primary).values():
                glue_cell(primary, overrides, base, output / "glue").artifacts()
    else:
        report(output, base, primaries, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("sample", "glue", "report", "all"))
    parser.add_argument("--scale", choices=("smoke", "cpu"), default="cpu")
    parser.add_argument("--root", type=Path, help="folder of GLUE as Parquet")
    parser.add_argument("--output", type=Path, default=Path("outputs/autosem"))
    parser.add_argument("--primaries", nargs="*", default=["rte", "mrpc"])
    given = parser.parse_args()
    if given.scale == "smoke":
        smoke()
        main(given.part, given.output, GLUE, ["chats"], given.output / "reports" / "autosem-smoke")
    else:
        if given.part == "glue" and given.root is None:
            parser.error("glue needs --root, a folder of GLUE as Parquet files")
        primaries = given.primaries if given.root else []
        main(given.part, given.output, [*GLUE, f"data.root={given.root}"], primaries, Path(__file__).resolve().parent)
