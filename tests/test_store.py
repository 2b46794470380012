"""Identity in, folder out: nothing is built twice, nothing half-built is ever found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fastmtl.identity import digest, plain, stable_name
from fastmtl.store import WEIGHTS, Artifact, Store
from tests.helpers.waiting import wait_for

IDENTITY: dict[str, Any] = {"data": "toy", "fit": {"epochs": 3, "lr": 2e-5}, "rows": [1, 2]}

HERE = __name__.partition(".")[0]


@dataclass(frozen=True)
class Up:
    size: int = 1


@dataclass(frozen=True)
class Down:
    size: int = 1


@dataclass(frozen=True)
class Wrapper:
    inner: Any = field(default_factory=Up)


def get(store: Store, kind: str, identity: Any, build: Callable[[Path], Any], *needs: str) -> Artifact:
    return store.get(kind, digest(identity), identity, build, *needs)


def find(store: Store, kind: str, identity: Any, *needs: str) -> Artifact | None:
    return store.find(kind, digest(identity), *needs)


def write(out: Path) -> dict[str, Any]:
    (out / "answer.json").write_text("42")
    return {"examples": 7}


def test_the_same_identity_is_the_same_folder_and_is_built_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built = get(store, "pool", IDENTITY, write)
    found = get(store, "pool", json.loads(json.dumps(IDENTITY)), lambda out: pytest.fail("built twice"))
    assert (built.hit, found.hit) == (False, True)
    assert built.path == found.path == tmp_path / "pool" / digest(IDENTITY)
    assert found.read("answer.json") == 42
    assert found.records["examples"] == 7


def test_what_lacks_the_file_that_is_needed_gets_that_file_alone(tmp_path: Path) -> None:
    def build(folder: Path) -> dict[str, int]:
        for name in ("kept", WEIGHTS):
            (folder / name).write_text(str(next(count)))
        return {"n": next(count)}

    store, count = Store(tmp_path), iter(range(10))
    made = get(store, "stage", {"a": 1}, build)
    (made.path / WEIGHTS).unlink()
    assert get(store, "stage", {"a": 1}, build).hit
    assert find(store, "stage", {"a": 1}, WEIGHTS) is None
    again = get(store, "stage", {"a": 1}, build, WEIGHTS)
    assert (again.hit, again.records) == (False, made.records)
    assert [(again.path / name).read_text() for name in ("kept", WEIGHTS)] == ["0", "4"]
    assert get(store, "stage", {"a": 1}, build, WEIGHTS).hit
    assert [path.name for path in again.path.parent.glob(".*.draft")] == []


def test_the_order_of_keys_and_items_counts() -> None:
    assert digest({"a": 1, "b": 2}) != digest({"b": 2, "a": 1})
    assert digest([{"a": 1}, {"b": 2}]) != digest([{"b": 2}, {"a": 1}])
    assert digest(("a", "b")) == digest(["a", "b"])


@pytest.mark.parametrize(
    "other",
    [
        {**IDENTITY, "data": "toys"},
        {**IDENTITY, "fit": {"epochs": 3, "lr": 2.1e-5}},
        {**IDENTITY, "fit": {"epochs": 4, "lr": 2e-5}},
        {**IDENTITY, "rows": [2, 1]},
        {**IDENTITY, "rows": [1, 2, None]},
        {**IDENTITY, "more": None},
        {k: v for k, v in IDENTITY.items() if k != "rows"},
    ],
    ids=["text", "nested float", "nested int", "order", "longer", "another key", "fewer keys"],
)
def test_any_change_of_the_identity_is_another_folder(other: dict[str, Any]) -> None:
    assert digest(other) != digest(IDENTITY)


def test_the_same_identity_in_two_stages_is_two_folders(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert get(store, "a", IDENTITY, write).path != get(store, "b", IDENTITY, write).path


def test_dataclasses_with_equal_fields_differ_by_their_class() -> None:
    assert digest({"selector": Up()}) != digest({"selector": Down()})
    assert digest({"selector": Up()}) == digest({"selector": Up()})
    assert digest({"selector": Up()}) != digest({"selector": Up(2)})


def test_a_dataclass_within_a_dataclass_counts_by_its_class_too() -> None:
    assert digest(Wrapper(Up())) != digest(Wrapper(Down()))


@dataclass(frozen=True)
class Versioned:
    size: int = 1
    version: ClassVar[int] = 1


def test_a_version_counts_where_there_is_one() -> None:
    before = digest(Versioned())
    assert plain(Versioned()) == [f"{HERE}.Versioned", 1, [["size", 1]]]
    Versioned.version = 2
    try:
        assert digest(Versioned()) != before
    finally:
        Versioned.version = 1


def test_a_class_counts_by_its_name_and_not_by_its_module() -> None:
    from fastmtl.training.config import FitConfig

    assert stable_name(FitConfig) == plain(FitConfig())[0] == "FitConfig"
    assert stable_name(Up) == f"{HERE}.Up"  # outside the package two classes may have one name
    assert digest(FitConfig(optimizer="adadelta")) != digest(FitConfig())
    assert digest(FitConfig(epochs=2.0)) == digest(FitConfig(epochs=2))  # type: ignore[arg-type]


def test_keys_are_the_same_on_every_machine() -> None:
    assert digest([{"a": 1, "b": [2.5, None, True, "ä"]}]) == "84e409e458afe9b1"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_no_identity_because_they_are_not_json(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"lr": value})


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, Up, b"x", bytearray(b"x")])
def test_what_has_no_plain_form_is_refused_rather_than_hashed_by_its_address(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        digest({"value": value})


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "never")
    assert find(store, "pool", IDENTITY) is None
    assert not (tmp_path / "never").exists()


def test_the_manifest_is_written_after_the_build_and_holds_identity_and_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen: list[list[str]] = []

    def build(out: Path) -> dict[str, Any]:
        (out / "weights").write_text("w")
        seen.append(sorted(p.name for p in out.iterdir()))
        assert find(store, "proxy", IDENTITY) is None
        return {"flops": 5.0}

    artifact = get(store, "proxy", IDENTITY, build)
    assert seen == [["weights"]]
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert manifest["identity"] == IDENTITY
    assert (manifest["kind"], manifest["key"]) == ("proxy", digest(IDENTITY))
    assert manifest["records"]["flops"] == 5.0
    assert manifest["records"]["wall_s"] >= 0
    assert find(store, "proxy", IDENTITY) is not None


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_a_build_that_raises_leaves_nothing_and_the_next_one_starts_clean(tmp_path: Path, error: BaseException) -> None:
    store = Store(tmp_path)

    def fail(out: Path) -> None:
        (out / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        get(store, "pool", IDENTITY, fail)
    assert [p.name for p in (tmp_path / "pool").iterdir() if p.is_dir()] == []
    built = get(store, "pool", IDENTITY, write)
    assert not built.hit
    assert not (built.path / "half").exists()


def test_a_folder_without_a_manifest_is_not_taken_for_a_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stray = tmp_path / "pool" / digest(IDENTITY)
    stray.mkdir(parents=True)
    (stray / "half").write_text("x")
    built = get(store, "pool", IDENTITY, write)
    assert not built.hit
    assert sorted(p.name for p in built.path.iterdir()) == ["answer.json", "manifest.json"]


_BUILDER = """
import os, sys, time
from pathlib import Path
from fastmtl.store import Store
root, how = Path(sys.argv[1]), sys.argv[2]
def build(out):
    with open(root / "builds", "a") as file:
        file.write("built\\n")
    (out / "half").write_text("x")
    if how == "exit":
        os._exit(9)
    time.sleep(60 if how == "hang" else 0.4)
    return {}
if how == "race":
    (root / f"ready{os.getpid()}").touch()
    while not (root / "go").exists():
        time.sleep(0.005)
from fastmtl.identity import digest
print(Store(root).get("stage", digest({"x": 1}), {"x": 1}, build).hit)
"""


def start(root: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _BUILDER, str(root), how], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_after_a_killed_build_the_same_call_finishes(tmp_path: Path, how: str) -> None:
    process = start(tmp_path, "exit" if how == "exit" else "hang")
    if how == "kill":
        wait_for(lambda: list((tmp_path / "stage").glob(".*.draft/half")), process=process)
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    store = Store(tmp_path)
    assert find(store, "stage", {"x": 1}) is None
    artifact = get(store, "stage", {"x": 1}, write)
    assert not artifact.hit
    assert sorted(p.name for p in artifact.path.iterdir()) == ["answer.json", "manifest.json"]
    assert [p for p in (tmp_path / "stage").iterdir() if p.is_dir()] == [artifact.path]


def test_of_four_racing_processes_exactly_one_builds_and_three_find(tmp_path: Path) -> None:
    processes = [start(tmp_path, "race") for _ in range(4)]
    wait_for(lambda: len(list(tmp_path.glob("ready*"))) == 4)
    (tmp_path / "go").touch()
    hits = [process.communicate(timeout=60)[0].split()[-1] for process in processes]
    assert (tmp_path / "builds").read_text() == "built\n"
    assert sorted(hits) == ["False", "True", "True", "True"]


def test_an_artifact_can_be_found_from_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("artifacts")
    path = get(store, "pool", IDENTITY, write).path
    monkeypatch.chdir(os.sep)
    assert find(store, "pool", IDENTITY) is not None
    assert path.is_absolute()
