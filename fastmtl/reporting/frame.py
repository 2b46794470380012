"""All finished cells as one data frame: a row a cell, the arm named by what tells it from the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmtl.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

Result = dict[str, Any]
"""A cell's `result.json`, see `reporting.cell.summarize`."""

SETTING = ("primary", "metric", "protocol", "encoder", "pool")
"""What two cells must share to be compared."""

BASELINES = ("none", "random", "full")
"""Selections that belong into every comparison, as references."""

ADDED = {"optimizer": "adamw"}
"""Last part of an option's key -> the value that cells had before there was this option, and that is not written."""

COPIED = (
    "id", "study", *SETTING, "selection", "budget", "seed", "best_epoch", "validation_rows", "precision_at_budget",
    "relevant_share", "utilities", "mixing", "audit", "command",
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
    """One row a cell, ordered by setting, arm (baselines first), budget and seed.

    Those of `COPIED` are as in the result, and `score` is its headline. `variant` is what else of the configuration
    differs between cells of this frame with the same selection, and `arm` both together. `total_flops` and
    `total_wall_s` are all that the cell needs but for the token pool. With a slash: `validation/METRIC`,
    `test/METRIC`, `rows/TASK`, `candidates/TASK` (which older cells lack), `flops/STAGE`, `wall_s/STAGE`, `key/STAGE`.
    `finetune` is the folder of the last stage.
    A cell that came several times counts once.
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
            **{key: cell[key] for key in COPIED},
            "variant": variant,
            "arm": " ".join(part for part in (cell["selection"], own, variant) if part),
            "score": cell["headline"],
            "aux_rows": cell["auxiliary_rows"],
            "total_flops": cell["total"]["flops"],
            "total_wall_s": cell["total"]["wall_s"],
            **{f"{split}/{name}": value for split, told in cell["metrics"].items() for name, value in told.items()},
            **{f"rows/{task}": count for task, count in cell["counts"].items()},
            **{f"candidates/{task}": count for task, count in cell.get("candidates", {}).items()},
            **_costs(cell),
        })  # fmt: skip

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        baseline = BASELINES.index(row["selection"]) if row["selection"] in BASELINES else len(BASELINES)
        return *(row[key] for key in SETTING), baseline, row["arm"], row["budget"] or 0, row["seed"]

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
    """Task -> rows that could be chosen, mean over the cells that chose; none for cells that an older version wrote."""
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
        costs[f"key/{name}"] = stage["key"]
        if name == "finetune":
            costs["finetune"] = stage["path"]
    return costs


def _variants(cells: Sequence[Result]) -> dict[str, tuple[str, str]]:
    """Id -> what differs from other cells of the same selection and primary: of the selection's options, of the rest.

    Within a setting alone: a learning rate that goes with the encoder tells no arm apart. A part of the configuration
    that a cell does without, such as a search, is `none` there, and elsewhere said as far as those that have it differ.
    """
    groups: dict[Any, list[Result]] = {}
    for cell in cells:
        groups.setdefault((cell["selection"], *(cell[key] for key in SETTING)), []).append(cell)
    named = {}
    for group in groups.values():
        keys, lacking = differing(group), []
        for part in dict.fromkeys(_part(key) for key in keys):
            having = [cell for cell in group if _has(cell, part)]
            if len(having) < len(group):
                among = differing(having)
                keys = [key for key in keys if _part(key) != part or key in among]
                lacking.append(part)
        for cell in group:
            said = [(key, f"{_short(key)}={_plain(_option(cell, key))}") for key in keys if _has(cell, _part(key))]
            said += [(part, f"{part}=none") for part in lacking if not _has(cell, part)]
            own, rest = (" ".join(text for key, text in said if _of_selection(key) == mine) for mine in (True, False))
            named[cell["id"]] = own, rest
    return named


def _part(key: str) -> str:
    return key.partition(".")[0]


def _has(cell: Result, part: str) -> bool:
    return any(_part(key) == part for key in cell["config"])


def differing(cells: Sequence[Result]) -> list[str]:
    """Dotted keys of the configuration with more than one value among cells of one setting and selection."""
    keys = dict.fromkeys(key for cell in cells for key in cell["config"])
    return [key for key in keys if len({json.dumps(_option(cell, key)) for cell in cells}) > 1]


def as_ever(key: str, value: Any) -> bool:
    """Whether the option was added later and this is what cells had before."""
    return value is not None and value == ADDED.get(key.rpartition(".")[2])


def _option(cell: Result, key: str) -> Any:
    return cell["config"].get(key, ADDED.get(key.rpartition(".")[2]))


def _of_selection(key: str) -> bool:
    return key.startswith("selection.")


def _short(key: str) -> str:
    """selection.scorer.loss -> loss; multitask.fit.epochs -> multitask.epochs"""
    return key.rsplit(".", 1)[-1] if _of_selection(key) else key.replace(".fit.", ".")


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else json.dumps(value)
