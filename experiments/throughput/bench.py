"""fastmtl against the usual ways, and against its goals: `python bench.py [--quick] [--only NAME] [--out FILE.json]`.

A full run writes results.md and results.json beside this file; `--out` writes elsewhere. Parts of a run are only
printed, or with `--update` take the place of what results.json has of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import fastmtl  # noqa: F401  first: it sets how torch's threads wait, before torch is imported

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all it reads is on this machine: no row may wait for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("TQDM_DISABLE", "1")

from measures import MEASURES, Bench, machine
from tabulate import tabulate
from timing import NotMeasurable, Result, reason

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> None:
    chosen = parse(arguments)
    names = chosen.only or list(MEASURES)
    started = time.perf_counter()
    about = machine()
    with tempfile.TemporaryDirectory(prefix="fastmtl-bench-") as scratch:
        bench = Bench(Path(scratch), chosen.quick, chosen.rows, chosen.repetitions, glue_root(chosen.quick))
        results = {name: run(name, bench) for name in names}
        # Described at the end: the pool is built by the first measure that needs rows, and by none if none does.
        rows = bench.described() if "rows" in vars(bench) else None
    report = {
        "machine": about,
        "rows": rows,
        "quick": chosen.quick,
        "repetitions": 2 if chosen.quick else chosen.repetitions,
        "seconds": round(time.perf_counter() - started),
        "measures": {name: [result.to_dict() for result in found] for name, found in results.items()},
    }
    if chosen.update:
        kept = json.loads((HERE / "results.json").read_text())
        assert kept["machine"]["cpu"] == about["cpu"], "results.json is of another machine: run all of it"
        report = {**kept, "measures": {**kept["measures"], **report["measures"]}}
    text = as_markdown(report)
    print(text)
    out = chosen.out or (HERE / "results.json" if chosen.update or not (chosen.quick or chosen.only) else None)
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n")
        out.with_suffix(".md").write_text(text + "\n")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it works, the numbers mean nothing"
    )
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="one measure; may be repeated")
    parser.add_argument("--out", type=Path, help="results as JSON; the table goes beside it as .md")
    parser.add_argument("--update", action="store_true", help="put these measures into results.json")
    parser.add_argument("--rows", type=int, help="rows to score (default: 512; on a GPU 32,768)")
    parser.add_argument("--repetitions", type=int, default=5)
    return parser.parse_args(arguments)


def glue_root(quick: bool) -> Path | None:
    """The folder of GLUE's Parquet files; None for the generated sample, which a quick run takes unless told."""
    given = os.environ.get("GLUE_ROOT")
    if not given and quick:
        return None
    root = Path(given or HERE.parents[2] / "shared" / "glue").expanduser().absolute()
    return root if root.is_dir() else None


def run(name: str, bench: Bench) -> list[Result]:
    """One measure; what goes wrong in it is said in its row."""
    started = time.perf_counter()
    try:
        found = MEASURES[name](bench)
    except Exception as error:
        if not isinstance(error, NotMeasurable):
            traceback.print_exc()
        found = [Result(name, reason=reason(error))]
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return found


def as_markdown(report: dict[str, Any]) -> str:
    lines = [result["shown"] for found in report["measures"].values() for result in found]
    head = ["measure", "median [min, max]", "goal", "verdict", "beside it"]
    parts = [tabulate(lines, head, tablefmt="github", disable_numparse=True), conditions(report)]
    if report["quick"]:
        parts.insert(0, "**A quick run: it shows that the benchmark works. Its numbers mean nothing.**")
    return "\n\n".join(parts)


def conditions(report: dict[str, Any]) -> str:
    """Machine and rows, in words."""
    about, rows = report["machine"], report["rows"]
    device = f"{about['gpu']}; " if about["gpu"] else ""
    abilities = ", ".join(about["capabilities"]) or "none named"
    text = (
        f"Machine: {device}{about['cpu']}, {about['cores']} cores ({abilities}), "
        f"{about['threads']} threads, precision `auto` is {about['precision']}; torch {about['torch']}, Python "
        f"{about['python']}; load before the run {about['load_before']}. {report['repetitions']} interleaved "
        f"repetitions, {report['seconds']} s in all."
    )
    if rows:
        per_task = ", ".join(f"{name} {count:,}" for name, count in rows["rows_per_task"].items())
        text += (
            f"\n\nRows: {rows['rows']:,} {rows['source']} ({per_task}), {rows['mean_tokens']} tokens on average, "
            f"{rows['longest']} at most."
        )
    return text


if __name__ == "__main__":
    main()
