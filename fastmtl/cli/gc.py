"""`fastmtl gc`: list, and on request remove, artifacts that no recorded result needs and what killed runs left."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fastmtl.cli.sweep import LOCK, held
from fastmtl.cli.verbs import Arguments
from fastmtl.errors import UserError
from fastmtl.store import MANIFEST

_KEY = re.compile(r"\b[0-9a-f]{16}\b")


@dataclass(frozen=True)
class Store:
    """A folder of artifacts; results are looked for in `outputs`, apart from those of the study that is given up."""

    root: Path
    outputs: tuple[Path, ...]
    given_up: str | None
    older_than_s: float

    def artifacts(self) -> dict[str, list[Path]]:
        """Key -> folders of finished artifacts, of whatever stage."""
        found: dict[str, list[Path]] = {}
        for manifest in self.root.glob(f"*/[!.]*/{MANIFEST}"):
            found.setdefault(manifest.parent.name, []).append(manifest.parent)
        return found

    def results(self) -> list[str]:
        """The texts of all recorded results that count."""
        folders = [folder for output in self.outputs for folder in output.iterdir() if folder.is_dir()]
        paths = (path for folder in folders if not folder.samefile(self.root) for path in folder.rglob("*.json"))
        found = [path for path in paths if path.name == "result.json" or path.parent.parent.name == "studies"]
        texts = [path.read_text() for path in found]
        return [text for text in texts if self.given_up is None or f'"study": "{self.given_up}"' not in text]

    def running(self) -> list[str]:
        """What processes are at work on: builds as STAGE/KEY, cells of sweeps by their folders."""
        cells = [str(lock.parent) for output in self.outputs for lock in output.glob(f"sweeps/**/{LOCK}") if held(lock)]
        return [f"{lock.parent.name}/{lock.name[1:-5]}" for lock in self.root.glob("*/.*.lock") if held(lock)] + cells

    def unreached(self) -> list[Path]:
        """Artifacts that nothing needs that is to stay: no result, and nothing that was made lately.

        None while a process runs, since a draft does not say what it is made from, nor where there are no results: they
        must be somewhere else then.
        """
        results, artifacts = self.results(), self.artifacts()
        if not results or self.running():
            return []
        lately = time.time() - self.older_than_s
        young = [key for key, at in artifacts.items() if any((one / MANIFEST).stat().st_mtime > lately for one in at)]
        needed = closure([*young, *(key for text in results for key in _KEY.findall(text))], artifacts)
        return [path for key, paths in artifacts.items() if key not in needed for path in paths]

    def remains(self) -> list[Path]:
        """Drafts whose process is gone, and checkpoints of unfinished fits that nobody went on with."""
        lately = time.time() - self.older_than_s
        left = [path for path in self.root.glob("*/.*.resume") if path.stat().st_mtime < lately]
        return [path for path in [*self.root.glob("*/.*.draft"), *left] if not held(_lock(path))]

    def remove(self, path: Path) -> bool:
        """Take the key's lock, put the folder out of reach whole, and delete it; False where a process has the lock."""
        try:
            with FileLock(lock := _lock(path), timeout=0):
                if path.is_dir():
                    gone = path if path.suffix == ".draft" else lock.with_suffix(f".{os.getpid()}.draft")
                    path.rename(gone)  # a finished artifact is there or not; a killed removal is the remains of a run
                    shutil.rmtree(gone)
                lock.unlink(missing_ok=True)
        except Timeout:
            return False
        return True


def _lock(path: Path) -> Path:
    """Of the key that a folder, draft, checkpoint or lock is named by."""
    return path.with_name(f".{path.name.strip('.').partition('.')[0]}.lock")


def closure(keys: Iterable[str], artifacts: dict[str, list[Path]]) -> set[str]:
    """The keys and all that their artifacts name: what they were made from, and the trials of a search."""
    needed, todo = set(), list(keys)
    while todo:
        if (key := todo.pop()) not in needed:
            needed.add(key)
            texts = (path.read_text() for folder in artifacts.get(key, ()) for path in folder.glob("*.json"))
            todo += (other for text in texts for other in _KEY.findall(text) if other in artifacts)
    return needed


def _size(path: Path) -> int:
    """Bytes; a file that several artifacts share counts for each of them in part."""
    stats = [file.stat() for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return sum(stat.st_size // stat.st_nlink for stat in stats)


def _age(text: str) -> float:
    found = re.fullmatch(r"(\d+)([dhm])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; use 30d, 12h or 0d")
    return int(found[1]) * {"d": 86400, "h": 3600, "m": 60}[found[2]]


def main(argv: list[str]) -> None:
    """`fastmtl gc`."""
    parser = Arguments("gc", "fastmtl gc --older-than 30d", "Nothing is removed before it is listed and agreed to.")
    parser.add_argument("--store", type=Path, default=Path("outputs/artifacts"), help="paths.artifacts of the runs")
    parser.add_argument("--output", type=Path, action="append", metavar="DIR", help="paths.output of runs that use the "
                        "store, all of them, repeatable (default: the folder that the store is in)")  # fmt: skip
    parser.add_argument("--older-than", type=_age, default="1d", metavar="AGE", help="keep what is newer (default: 1d)")
    parser.add_argument("--study", help="its results and pages stay, but do not keep artifacts; NAME of study=NAME")
    parser.add_argument("--yes", action="store_true", help="remove without a question")
    given = parser.parse_args(argv)
    store = Store(given.store, tuple(given.output or [given.store.parent]), given.study, given.older_than)
    for folder in (store.root, *store.outputs):
        if not folder.is_dir():
            option = "--store" if folder == store.root else "--output"
            raise UserError(f"{str(folder)!r} is no folder; name that of the runs with {option}")
    unreached, remains = store.unreached(), store.remains()
    sizes = {path: _size(path) for path in [*unreached, *remains]}
    for path in sorted(sizes, key=lambda path: -sizes[path]):
        what = "no result needs it" if path in unreached else "left by a killed run"
        print(f"{sizes[path] / 1e6:10.1f} MB  {path.relative_to(store.root)}  {what}")
    for name in store.running():
        print(f"in use: {name}; artifacts stay while a process runs")
    if not store.results():
        print(f"no results in {', '.join(map(str, store.outputs))}: artifacts stay; name their folder with --output")
    listed = (
        f"{len(unreached)} artifacts and {len(remains)} remains, {sum(sizes.values()) / 1e6:.1f} MB, in {store.root}"
    )
    if not sizes or not (given.yes or (sys.stdin.isatty() and input(f"{listed}: remove them? [y/N] ").lower() == "y")):
        print(listed + ("" if not sizes else "; nothing is removed without --yes"))
        return
    still = {*store.unreached(), *store.remains()}  # a run may have begun since
    print(f"removed {sum(path in still and store.remove(path) for path in sizes)} of {listed}")
    for lock in store.root.glob("*/.*.lock"):  # empty files that no build removes
        store.remove(lock)
