"""A finished cell -> one run of the chosen logger: W&B, TensorBoard or CSV, all with the same scalars."""

from __future__ import annotations

import csv
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from numbers import Real
from pathlib import Path
from typing import Any

from fastmtl.errors import UserError
from fastmtl.reporting.frame import SETTING, Result, frame

TABLES = {"top": "selected/top", "bottom": "selected/bottom"}
"""End of the ranking -> name of its table in W&B."""

COLUMNS = ("rank", "task", "score", "label", "text_a", "text_b", "row")
"""Of those tables; see `selected_rows`."""

BELIEFS = "posteriors"
"""Name of the bandit's figure in W&B."""


def log_cell(
    logger: Any, result: Result, config: dict[Any, Any], rows: Sequence[dict[str, Any]] = (),
    beliefs: Path | None = None,
) -> None:  # fmt: skip
    """Write configuration, curves and `scalars`; to W&B also `rows` of the selection and the figure of `beliefs`.

    All is read from the artifacts, after the fact: so a cell whose stages were all found is logged as completely as one
    that was trained just now. A curve of a stage has that stage's steps, `STAGE/step`, for its axis.
    """
    from pytorch_lightning.loggers import WandbLogger

    run: Any = None
    if isinstance(logger, WandbLogger):
        import wandb

        try:
            wandb.setup()  # reads WANDB_SILENT, before a run is opened, not after its first warning
            run = logger.experiment
        except wandb.Error as error:
            raise UserError(f"W&B: {str(error).splitlines()[0]} (logger.offline=true sends nothing)") from error
    try:
        logger.log_hyperparams({
            **config, "id": result["id"], "budget": result["budget"], "setting": setting(result),
            "command": result["command"],
        })  # fmt: skip
        # An equal id means equal curves: where the server has that run, logged to its end, there is nothing to append.
        points = [] if run and run.resumed and run.summary.get("score") is not None else list(curves(result))
        for stage in dict.fromkeys(stage for stage, *_ in points) if run else ():
            run.define_metric(f"{stage}/step", hidden=True)
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        for stage, step, values in points:
            logger.log_metrics({**values, f"{stage}/step": step}, step)
        if run:
            for end, key in TABLES.items():
                if data := [[row[c] for c in COLUMNS] for row in rows if row["end"] == end]:
                    logger.log_table(key, columns=list(COLUMNS), data=data)
            if beliefs:
                logger.log_image(BELIEFS, [str(beliefs)])
        logger.log_metrics(scalars(result), step=0)
    finally:
        logger.finalize("success")
        if run:  # W&B keeps one run open a process; the next cell needs its own
            run.finish()
    if run:  # without a server W&B starts a folder anew each time; synced one after the other they would add up
        folder = Path(run.dir).parent
        for older in folder.parent.glob(f"offline-run-*-{run.id}"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)


def setting(result: Result) -> str:
    """What two runs must share to be compared, as one value to filter by."""
    return " ".join(str(result[key]) for key in SETTING)


def scalars(result: Result) -> dict[str, float]:
    """Name -> value of all that a cell logs at its end: the numbers of its row in `frame`, utilities and ratio."""
    mixing = result["mixing"] or {"tasks": [], "ratio": []}
    named = {
        **frame([result]).iloc[0],
        **{f"utility/{task}": value for task, value in (result["utilities"] or {}).items() if value is not None},
        **{f"ratio/{task}": value for task, value in zip(mixing["tasks"], mixing["ratio"])},
    }
    return {k: float(v) for k, v in named.items() if isinstance(v, Real) and not math.isnan(v)}


def curves(result: Result) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Stage, step and values of every point of the learning curves; artifacts of one stage follow each other."""
    first: dict[str, int] = defaultdict(int)
    for artifact in result["stages"]:
        path, stage = Path(artifact["path"]) / "curves.csv", artifact["stage"]
        points = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
        for step, group in groupby(points, key=lambda point: int(point["step"])):
            yield stage, first[stage] + step, {f"{stage}/{point['name']}": float(point["value"]) for point in group}
        first[stage] += int(points[-1]["step"]) + 1 if points else 0
