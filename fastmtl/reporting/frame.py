"""All finished cells as one data frame: one row per cell, the arm named by what sets it apart from the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmtl.errors import UserError
from fastmtl.identity import digest

if TYPE_CHECKING:
    from pandas import DataFrame

Result = dict[str, Any]
"""A cell's `result.json`, see `reporting.result.summarize`."""

SETTING = ("primary", "metric", "protocol", "encoder", "pool")
"""What two cells must share to be compared."""

BASELINES = ("none", "primary_only", "random", "full")
"""Selections that belong into every comparison, as references."""

ALONE = ("none", "primary_only")
"""Selections without auxiliary rows."""

OPTIONS = {
    "selection.examples_per_task": "proxy.examples_per_task", "selection.cross_fit": "proxy.cross_fit",
    "selection.tasks": "proxy.tasks", "selection.leakage": "data.leakage", "selection.cascade": "scoring.cascade",
    "selection.cascade.keep": "scoring.keep", "selection.cascade.levels": "scoring.levels",
    "proxy.discriminator": "selection.scorer.loss",
    "scores.scorer": "selection.scorer", "scores.precision": "scoring.precision", "scores.encoder": "proxy.encoder",
    "prepared.scorer": "selection.scorer", "prepared.precision": "scoring.precision",
    "prepared.encoder": "proxy.encoder", "utilities.predictor": "selection.predictor", "utilities.encoder": "encoder",
    "utilities.policy.rounds": "bandit.rounds", "utilities": "bandit", "joint.encoder": "encoder",
    "joint.sampling": "relations", "joint": "relations", "mixing.search": "mixing",
    "multitask.protocol": "protocol.name", "multitask.holdout": "protocol.holdout", "multitask.encoder": "encoder",
    "multitask.sampling": "sampling", "multitask.weighting": "weighting", "finetune.protocol": "protocol.name",
    "finetune.holdout": "protocol.holdout", "finetune.encoder": "encoder", "multitask.redraw": "data.redraw",
    "finetune.redraw": "data.redraw", "finetune.choose_by": "protocol.choose_by",
    "multitask.choose_by": "protocol.choose_by", "utilities.choose_by": "protocol.choose_by",
}  # fmt: skip
"""What a key of `Experiment.options` begins with -> what the key of the command line begins with that set it."""

LONGEST = 40
"""Characters of a value that a label shows; of a longer one it shows a digest."""

COPIED = (
    "id", "study", *SETTING, "selection", "budget", "seed", "best_epoch", "validation_rows", "precision_at_budget",
    "relevant_share", "utilities", "mixing", "audit", "leakage", "environment", "command", "primary_rows",
    "primary_draw",
)  # fmt: skip


def read_results(folder: Path) -> list[Result]:
    """The cells of a study's folder, `<id>.json` each; a `UserError` if there are none."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not found:
        known = ", ".join(sorted(path.name for path in folder.parent.glob("*") if any(path.glob("*.json"))))
        raise UserError(
            f"study {folder.name!r} has no finished cells in {folder.parent}; "
            + (f"there are {known}" if known else f"run some with: fastmtl -m study={folder.name} ...")
        )
    return found


def frame(results: Iterable[Result]) -> DataFrame:
    """One row per cell, however often it came, ordered by setting, arm (baselines first), budget and seed.

    Those of `COPIED` are as in the result, and `score` is its headline. `variant` is what else of the configuration
    differs between cells of this frame with the same selection, and `arm` both together. `total_flops` and
    `total_wall_s` are all that the cell needs but for the token pool. `passes` over the primary's training rows are of
    both stages. With a slash: `validation/METRIC`, `test/METRIC`, `rows/TASK`, `candidates/TASK`, `flops/STAGE`,
    `wall_s/STAGE`, `key/STAGE`. `finetune` is the last stage's folder.
    """
    from pandas import DataFrame

    cells = list({result["id"]: result for result in results}.values())
    if old := [cell["id"] for cell in cells if "config" not in cell]:
        raise UserError(f"cell {old[0]} was written by an older version; repeat its command, its stages will be found")
    variants = _variants(cells)
    rows = []
    for cell in cells:
        own, variant = variants[cell["id"]]
        rows.append({
            **{key: cell.get(key) for key in COPIED},
            "variant": variant,
            "arm": " ".join(part for part in (cell["selection"], own, variant) if part),
            "score": cell["headline"],
            "aux_rows": cell["auxiliary_rows"],
            "total_flops": cell["total"]["flops"],
            "total_wall_s": cell["total"]["wall_s"],
            "passes": _passes(cell),
            **{f"{split}/{name}": value for split, own in cell["metrics"].items() for name, value in own.items()},
            **{f"rows/{task}": count for task, count in cell["counts"].items()},
            **{f"candidates/{task}": count for task, count in cell["candidates"].items()},
            **_costs(cell),
        })  # fmt: skip

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        baseline = BASELINES.index(row["selection"]) if row["selection"] in BASELINES else len(BASELINES)
        setting = *(row[key] for key in SETTING[:-1]), row["primary_rows"] or 0, row["pool"]
        return *setting, baseline, row["arm"], row["budget"] or 0, row["seed"]

    made = DataFrame(sorted(rows, key=place))
    if len(made):
        whole = all(row["budget"] is None or isinstance(row["budget"], int) for row in rows)
        made["budget"] = made["budget"].astype("Int64" if whole else "Float64")
    return made


def settings(cells: DataFrame) -> Iterator[tuple[dict[str, str], DataFrame]]:
    """Setting and its cells; numbers of different settings are never in one table."""
    for values, group in cells.groupby(list(SETTING), sort=False):
        yield dict(zip(SETTING, values)), group.reset_index(drop=True)


def arms(cells: DataFrame) -> Iterator[tuple[str, Any, DataFrame]]:
    """Arm, budget (NA for arms without one) and the cells of all seeds, of one setting."""
    for (arm, budget), group in cells.groupby(["arm", "budget"], sort=False, dropna=False):
        yield arm, budget, group


def candidates(cells: DataFrame) -> dict[str, float]:
    """Task -> rows that could be chosen, mean over the cells that chose."""
    chose = cells[cells["budget"].notna()] if cells["budget"].notna().any() else cells
    names = [name for name in chose if name.startswith("candidates/")]
    return {name.removeprefix("candidates/"): float(chose[name].fillna(0).mean()) for name in names}


def _costs(cell: Result) -> dict[str, Any]:
    """Columns of a cell's stages: what all artifacts of a stage cost, and the key of the last one."""
    costs: dict[str, Any] = {}
    for stage in cell["stages"]:
        name = stage["stage"]
        for unit in ("wall_s", "flops"):
            costs[f"{unit}/{name}"] = costs.get(f"{unit}/{name}", 0.0) + (stage.get(unit) or 0.0)
        costs |= {f"key/{name}": stage["key"]} | ({"finetune": stage["path"]} if name == "finetune" else {})
    return costs


def _passes(cell: Result) -> float | None:
    """Over the primary's rows in multi-task training and fine-tuning; None where older artifacts do not say."""
    trained = [stage for stage in cell["stages"] if stage["stage"] in ("multitask", "finetune")]
    counts = [stage.get("passes", {}).get(cell["primary"]) for stage in trained]
    return None if None in counts else sum(counts)


def option(key: str) -> str:
    """The key of the command line for one of `Experiment.options`: scores.scorer.loss -> selection.scorer.loss."""
    for end in (i for i in range(len(key), 0, -1) if i == len(key) or key[i] == "."):
        if (named := OPTIONS.get(key[:end])) is not None:
            return named + key[end:]
    return key


def differing(cells: Sequence[Result]) -> list[dict[str, str]]:
    """For each of some cells of one setting and selection, option -> value of what sets it apart from the others.

    Within a setting alone: a learning rate that goes with the encoder tells no arm apart. Options of a part that a cell
    does without, such as a search, count among the cells that have it, and the part is `none` elsewhere; options of a
    class, such as a sampling, count among the cells that use it.
    """
    configs = [{key: _text(value) for key, value in cell["config"].items()} for cell in cells]
    parts = [set(map(_part, config)) for config in configs]
    keys = dict.fromkeys(key for config in configs for key in config)
    shown: list[dict[str, str]] = [{} for _ in cells]
    for key in keys:
        parent = max((one for one in keys if key.startswith(f"{one}.")), key=len, default="")
        alike: dict[Any, list[int]] = {}
        for i, config in enumerate(configs):
            if _part(key) in parts[i]:
                alike.setdefault(config.get(parent), []).append(i)
        for among in alike.values():
            if len({configs[i].get(key, "null") for i in among}) > 1:
                for i in among:
                    shown[i].setdefault(option(key), configs[i].get(key, "null"))
    for part in dict.fromkeys(map(_part, keys)):
        for one, having in zip(shown, parts):
            if part not in having:
                one[option(part)] = "none"
    for name in dict.fromkeys(name for one in shown for name in one):
        # A proxy has the main model's encoder, and a fit the encoder's learning rate, unless they are given their own.
        main = name.removeprefix("proxy.") if ".encoder." in name else f"encoder.{name.rpartition('.fit.')[2]}"
        if main != name and all(name not in one or one.get(main) == one[name] for one in shown):
            for one in shown:
                one.pop(name, None)
    return shown


def _variants(cells: Sequence[Result]) -> dict[str, tuple[str, str]]:
    """Id -> what tells a cell from others of its selection and setting: of the selection's options, of the rest."""
    groups: dict[Any, list[Result]] = {}
    for cell in cells:
        groups.setdefault((cell["selection"], *(cell[key] for key in SETTING)), []).append(cell)
    named = {}
    for (selection, *setting), group in groups.items():
        alike = (some for (name, *same), some in groups.items() if same == setting and name not in ALONE)
        usual = _usual([cell for some in alike for cell in some]) if selection in ALONE else {}
        for cell, said in zip(group, differing(group)):
            own, rest = [], []
            for name, value in said.items():
                if usual.get(name) == value:
                    continue
                text = value if len(value) <= LONGEST else digest(value)[:6]
                if name.startswith("selection."):  # selection.scorer.loss -> loss
                    own.append(f"{name.rpartition('.')[2]}={text}")
                else:  # multitask.fit.epochs -> multitask.epochs
                    rest.append(f"{name.replace('.fit.', '.')}={text}")
            named[cell["id"]] = " ".join(own), " ".join(rest)
    return named


def _usual(cells: Sequence[Result]) -> dict[str, str]:
    """Option -> the value that all these cells have: an arm without auxiliary rows that was trained longer is named by
    it, and the one that was trained as the others is not."""
    values: dict[str, set[str]] = {}
    for cell in cells:
        for key, value in cell["config"].items():
            values.setdefault(option(key), set()).add(_text(value))
    return {name: next(iter(some)) for name, some in values.items() if len(some) == 1}


def _part(key: str) -> str:
    return key.partition(".")[0]


def _text(value: Any) -> str:
    """The value as a label shows it; 2 and 2.0 are the same."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)
