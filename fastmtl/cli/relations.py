"""`fastmtl relations`: train every task alone and in every pair; report who gains by whom and what predicts it."""

from __future__ import annotations

from pathlib import Path

from fastmtl.cli.compose import compose, values
from fastmtl.cli.messages import check_folder_name
from fastmtl.cli.verbs import Arguments, count
from fastmtl.store import write_json


def main(argv: list[str]) -> None:
    """`fastmtl relations`."""
    parser = Arguments("relations", "fastmtl relations glue data=glue encoder=minilm relations.batches=500 --seeds 3")
    parser.add_argument("name", help="of the result, in <paths.output>/relations/NAME")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE as for fastmtl; relations.* sets the trainings")
    parser.add_argument("--seeds", type=count, default=2, help="number of seeds, from seed=0 on (default: %(default)s)")
    parser.add_argument("--points", action="store_true", help="absolute gains, for single-task scores near zero")
    parser.add_argument("--no-affinities", action="store_true", help="train no proxy; gains and features alone")
    parser.add_argument("--out", type=Path, help="where to write instead")
    given = parser.parse_intermixed_args(argv)
    check_folder_name(given.name)
    compose(*given.overrides)  # reports what is wrong before anything else
    cfg = values(*given.overrides)
    out = given.out or Path(cfg.paths.output) / "relations" / given.name

    from fastmtl.pipelines.relations import GainMatrix
    from fastmtl.reporting.relations import write

    seeds = range(cfg.seed, cfg.seed + given.seeds)
    # No rows are chosen here, so any budget does, also one beyond the candidates.
    cells = {seed: compose(*given.overrides, "budget=1.0", f"seed={seed}") for seed in seeds}
    found = GainMatrix(cells, not given.no_affinities).run()
    names = sorted({name for cell in cells.values() for name in cell.context.names})
    needed = {"artifacts": [f"{kind}/{key}" for kind, key in names]}
    write_json(Path(cfg.paths.output) / "relations" / given.name / "result.json", needed)  # for `fastmtl gc`
    print(f"\n{write(found, out, given.name, 'points' if given.points else 'percent')}\n\nwritten to {out}")
