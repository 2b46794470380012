"""Artifacts by identity: one folder a stage result, named by the hash of everything that can change its content."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
"""The one file of an artifact that may be dropped: whoever `needs` it has it built again."""


def digest(identity: Any) -> str:
    """16 hex digits of the SHA-256 of `identity` as key-sorted JSON; dataclasses count by class name and fields.

    A field with the metadata `added_later` counts only where it is not at its default: older artifacts are still found.
    """
    text = json.dumps(identity, sort_keys=True, default=_plain, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        told = [(f, getattr(value, f.name)) for f in fields(value)]  # one level: an inner dataclass comes here too
        own = {f.name: part for f, part in told if not f.metadata.get("added_later") or part != f.default}
        return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **own}
    raise TypeError(f"{value!r} cannot be part of an identity; make its class a frozen dataclass")


@dataclass(frozen=True)
class Artifact:
    """A finished stage folder. `hit` says that this process found it rather than built it."""

    stage: str
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
    """Folders `root/<stage>/<key>`; a folder whose manifest exists is complete and is never written again, but for
    `WEIGHTS` that were dropped and are needed.

    A build holds a lock of its own key, writes to a sibling folder, puts `manifest.json` there last and renames it,
    so a killed build leaves nothing that another process could take for a result.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def find(self, stage: str, identity: Any, needs: str = MANIFEST) -> Artifact | None:
        """The artifact if it is complete and has the file that it `needs`, else None."""
        key = digest(identity)
        path = self.root / stage / key
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        return Artifact(stage, key, path, manifest, hit=True) if (path / needs).exists() else None

    def get(
        self, stage: str, identity: Any, build: Callable[[Path], dict[str, Any] | None], needs: str = MANIFEST
    ) -> Artifact:
        """Find the artifact, or let `build(folder)` fill a folder for it; what `build` returns becomes its records.

        Of one that lacks nothing but the file that it `needs` that file alone is taken: its records stay as they were.
        """
        if (found := self.find(stage, identity, needs)) is not None:
            return found
        key = digest(identity)
        path = self.root / stage / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{key}.lock"), stage):
            if (found := self.find(stage, identity, needs)) is not None:  # another process was faster
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
            manifest = {
                "stage": stage,
                "key": key,
                "identity": identity,
                "records": records,
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "ran_on": _ran_on(),
            }
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, default=_plain))
            if self.find(stage, identity) is not None:
                os.replace(draft / needs, path / needs)
                shutil.rmtree(draft, ignore_errors=True)
            else:
                shutil.rmtree(path, ignore_errors=True)  # a folder without a manifest: not ours, not complete
                os.replace(draft, path)
        return Artifact(stage, key, path, json.loads((path / MANIFEST).read_text()), hit=False)


@lru_cache(maxsize=1)
def _ran_on() -> dict[str, str]:
    """System, Python and the packages that move numbers; no host or user name."""
    names = ("fastmtl", "torch", "pytorch-lightning", "transformers", "tokenizers")
    return {"system": platform.platform(), "python": platform.python_version(), **{n: version(n) for n in names}}


class _locked:
    """The key's file lock; says so when it has to wait for another process."""

    def __init__(self, path: Path, stage: str) -> None:
        self.lock, self.stage = FileLock(path), stage

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=2)
        except Timeout:
            print(f"fastmtl: another process is building this {self.stage}; waiting for it", flush=True)
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
