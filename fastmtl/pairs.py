"""`fastmtl-relations`: train every task alone and in every pair, and say who gains by whom and what foretells it.

A model is an artifact: the same command goes on where it was, another task adds its own pairs alone, and processes with
other seeds may run beside each other (Bingel & Søgaard 2017, with seeds and affinities).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmtl.config import check_folder_name, compose, told_in_one_line, values
from fastmtl.errors import UserError

if TYPE_CHECKING:  # torch and pandas take seconds to import; --help does without them
    from pandas import DataFrame

    from fastmtl.pipeline import Experiment
    from fastmtl.reporting.relations import Relations


@dataclass(frozen=True)
class Matrix:
    """`overrides` as of `fastmtl`, the seeds to train with, and whether affinities are computed beside the pairs."""

    overrides: tuple[str, ...]
    seeds: Sequence[int]
    affinities: bool = True

    def run(self) -> Relations:
        """Everything that is missing, then all of it."""
        from pandas import DataFrame

        from fastmtl.reporting.relations import Relations
        from fastmtl.stages.checks import check_related

        # No rows are chosen: a budget beyond the candidates is none of our business.
        cells = {seed: compose(*self.overrides, "budget=1.0", f"seed={seed}") for seed in self.seeds}
        tasks = next(iter(cells.values())).source.tasks
        metrics = {task.name: task.metrics[0] for task in tasks}
        names = list(metrics)
        if len(names) < 2:
            raise UserError(f"data has one task, {names[0]!r}, and so no pairs; add tasks")
        for task in tasks:  # all of them before the first is trained
            check_related(task)
        groups = [(name,) for name in names] + list(combinations(names, 2))
        single: list[dict[str, Any]] = []
        pairs: list[dict[str, Any]] = []
        costs: dict[str, list[Any]] = {"each task alone": [], "all pairs": []}
        for done, (group, seed) in enumerate([(group, seed) for group in groups for seed in self.seeds], 1):
            model = cells[seed].joint(*group)
            measured, told = model.read("scores.json"), []
            for name in group:
                metric = metrics[name]
                score, rows = measured[name][metric], cells[seed].joint_rows(name)
                row = {"task": name, "seed": seed, "metric": metric, "score": score, "rows": rows}
                other = [one for one in group if one != name]
                (pairs if other else single).append({**row, "other": other[0]} if other else row)
                told.append(f"{name} {100 * score:.1f}")
            state = "found" if model.hit else f"{model.records['wall_s']:.0f} s"
            print(f"[{done}/{len(groups) * len(self.seeds)}] seed {seed}: {', '.join(told)} ({state})", flush=True)
            costs["all pairs" if len(group) > 1 else "each task alone"].append(model.records)
        found = [self._affinities(cells[seed], costs) for seed in self.seeds] if self.affinities else []
        return Relations(
            DataFrame(single), DataFrame(pairs), _mean_features(cells, names), _mean_tables(found), _costs(costs)
        )

    def _affinities(self, cell: Experiment, costs: dict[str, list[Any]]) -> dict[str, DataFrame]:
        from pandas import DataFrame

        made = cell.affinities()
        costs.setdefault("proxy and its scores", []).extend(one.records for one in (*cell.proxy, *cell.scores))
        for name, seconds in made.records["seconds"].items():
            costs.setdefault(f"affinity: {name}", []).append({"wall_s": seconds})
        tables = {name: DataFrame(table).T for name, table in made.read("affinities.json").items()}
        return {name: table[list(table.index)] for name, table in tables.items()}


def _mean_features(cells: Mapping[int, Experiment], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each task's features, the mean over seeds: its data has no seed, its learning curve has."""
    from pandas import DataFrame

    return {
        name: DataFrame([cell.features(name).read("features.json") for cell in cells.values()]).mean().to_dict()
        for name in names
    }


def _mean_tables(found: Sequence[Mapping[str, DataFrame]]) -> dict[str, DataFrame]:
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]} if found else {}


def _costs(costs: Mapping[str, Sequence[Mapping[str, float]]]) -> DataFrame:
    from pandas import DataFrame

    rows = {
        work: {
            "flops": sum(one.get("flops", float("nan")) for one in records),
            "seconds": sum(one["wall_s"] for one in records),
        }
        for work, records in costs.items()
    }
    return DataFrame(rows).T


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `fastmtl-relations`; its arguments are those of the command line unless given."""
    parser = argparse.ArgumentParser(
        prog="fastmtl-relations",
        description="Train every task alone and in every pair, and say who gains by whom and what foretells it.",
        epilog="fastmtl-relations glue data=glue encoder=minilm relations.batches=500 --seeds 3",
    )
    parser.add_argument("name", help="of the result, in <paths.output>/relations/NAME")
    parser.add_argument(
        "overrides", nargs="*", help="KEY=VALUE as for fastmtl; relations.* says how models are trained"
    )
    parser.add_argument("--seeds", type=int, default=2, help="so many, from seed=0 on (default: %(default)s)")
    parser.add_argument(
        "--points", action="store_true", help="gains as differences of scores, for tasks that are near zero alone"
    )
    parser.add_argument("--no-affinities", action="store_true", help="train no proxy; gains and features alone")
    parser.add_argument("--out", type=Path, help="where to write instead")
    given = parser.parse_intermixed_args(arguments)
    with told_in_one_line("fastmtl-relations"):
        check_folder_name(given.name)
        if given.seeds < 1:
            raise UserError(f"--seeds {given.seeds} is out of range; use 1 or more")
        compose(*given.overrides)  # says what is wrong before anything else
        cfg = values(*given.overrides)
        out = given.out or Path(cfg.paths.output) / "relations" / given.name
        seeds = range(cfg.seed, cfg.seed + given.seeds)
        found = Matrix(tuple(given.overrides), seeds, not given.no_affinities).run()

        from fastmtl.reporting.relations import write

        told = write(found, out, given.name, "points" if given.points else "percent")
        print(f"\n{told}\n\nwritten to {out}")


if __name__ == "__main__":
    main()
