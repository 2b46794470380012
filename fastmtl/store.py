"""Artifacts by key: one folder per stage result, named by the hash of everything that can change its content."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fastmtl.errors import UserError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
"""The one file of an artifact that may be dropped: whoever `needs` it has it built again."""


@dataclass(frozen=True)
class Artifact:
    """A finished stage folder. `hit` says that this process found it rather than built it."""

    kind: str
    key: str
    path: Path
    manifest: dict[str, Any] = field(repr=False)
    hit: bool

    @property
    def records(self) -> dict[str, Any]:
        """What was measured while it was built: wall_s, device, examples, tokens, flops …"""
        return self.manifest["records"]

    def read(self, name: str) -> Any:
        """A JSON file of the folder."""
        return json.loads((self.path / name).read_text())


class Store:
    """Folders `root/<kind>/<key>`; a folder whose manifest exists is complete and is never written again, but for
    `WEIGHTS` that were dropped and are needed.

    A build holds a lock of its own key, writes to a sibling folder, puts `manifest.json` there last and renames it,
    so a killed build leaves nothing that another process could take for a result.

    Raises:
        UserError: `root` is not a folder that this process can write to.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        existing = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(f"paths.artifacts={str(root)!r} cannot be written to; name a folder of yours")

    def find(self, kind: str, key: str, needs: str = MANIFEST) -> Artifact | None:
        """The artifact if it is complete and has the file that it `needs`, else None."""
        path = self.root / kind / key
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        return Artifact(kind, key, path, manifest, hit=True) if (path / needs).exists() else None

    def scratch(self, kind: str, key: str) -> Path:
        """A folder that a killed build may leave behind for the next one; whoever builds removes it at the end."""
        return self.root / kind / f".{key}.resume"

    def get(
        self, kind: str, key: str, identity: Any, build: Callable[[Path], dict[str, Any] | None], needs: str = MANIFEST
    ) -> Artifact:
        """Find the artifact, or let `build(folder)` fill a folder for it; what `build` returns becomes its records.

        Of one that lacks nothing but the file that it `needs` that file alone is taken: its records stay as they were.
        `identity` is what the key is a digest of, for people who read the manifest.
        """
        if (found := self.find(kind, key, needs)) is not None:
            return found
        path = self.root / kind / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"paths.artifacts={str(self.root)!r} cannot be written to ({error.strerror})") from error
        with _locked(path.with_name(f".{key}.lock"), kind):
            if (found := self.find(kind, key, needs)) is not None:  # another process was faster
                return found
            for stale in path.parent.glob(f".{key}.*.draft"):  # what a killed build left; we hold the lock
                shutil.rmtree(stale, ignore_errors=True)
            # A name of its own: children that outlived a killed build must not write into this one.
            draft = path.with_name(f".{key}.{os.getpid()}.draft")
            draft.mkdir()
            started = time.perf_counter()
            try:
                records = dict(build(draft) or {})
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            records.setdefault("wall_s", round(time.perf_counter() - started, 3))
            made = {"made": datetime.now(UTC).isoformat(timespec="seconds"), "ran_on": ran_on()}
            manifest = {"kind": kind, "key": key, "identity": identity, "records": records, **made}
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=1))
            if self.find(kind, key) is not None:
                os.replace(draft / needs, path / needs)
                shutil.rmtree(draft, ignore_errors=True)
            else:
                shutil.rmtree(path, ignore_errors=True)  # a folder without a manifest: not ours, not complete
                os.replace(draft, path)
        return Artifact(kind, key, path, json.loads((path / MANIFEST).read_text()), hit=False)


@lru_cache(maxsize=1)
def ran_on() -> dict[str, str]:
    """System, Python and the packages that move numbers; no host or user name."""
    names = ("fastmtl", "torch", "pytorch-lightning", "transformers", "tokenizers")
    return {"system": platform.platform(), "python": platform.python_version(), **{n: version(n) for n in names}}


@contextmanager
def _locked(path: Path, kind: str) -> Iterator[None]:
    """Hold the key's file lock; say so when it has to wait for another process."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=2)
    except Timeout:
        log.info("another process is building this %s; waiting for it", kind)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all: others may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=1))
    os.replace(draft, path)
