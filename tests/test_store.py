"""Identity in, folder out: nothing is built twice, nothing half-built is ever found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastmtl.store import WEIGHTS, Store, digest
from tests.helpers.waiting import wait_for

IDENTITY: dict[str, Any] = {"data": "toy", "fit": {"epochs": 3, "lr": 2e-5}, "rows": [1, 2]}


@dataclass(frozen=True)
class Up:
    size: int = 1


@dataclass(frozen=True)
class Down:
    size: int = 1


@dataclass(frozen=True)
class Wrapper:
    inner: Any = field(default_factory=Up)


def write(out: Path) -> dict[str, Any]:
    (out / "answer.json").write_text("42")
    return {"examples": 7}


def test_the_same_identity_is_the_same_folder_and_is_built_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built = store.get("pool", IDENTITY, write)
    found = store.get("pool", json.loads(json.dumps(IDENTITY)), lambda out: pytest.fail("built twice"))
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
    made = store.get("stage", {"a": 1}, build)
    (made.path / WEIGHTS).unlink()
    assert store.get("stage", {"a": 1}, build).hit
    assert store.find("stage", {"a": 1}, WEIGHTS) is None
    again = store.get("stage", {"a": 1}, build, WEIGHTS)
    assert (again.hit, again.records) == (False, made.records)
    assert [(again.path / name).read_text() for name in ("kept", WEIGHTS)] == ["0", "4"]
    assert store.get("stage", {"a": 1}, build, WEIGHTS).hit
    assert [path.name for path in again.path.parent.glob(".*.draft")] == []


def test_the_order_of_keys_does_not_matter() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


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
    assert store.get("a", IDENTITY, write).path != store.get("b", IDENTITY, write).path


def test_dataclasses_with_equal_fields_differ_by_their_class() -> None:
    assert digest({"selector": Up()}) != digest({"selector": Down()})
    assert digest({"selector": Up()}) == digest({"selector": Up()})
    assert digest({"selector": Up()}) != digest({"selector": Up(2)})


def test_a_dataclass_within_a_dataclass_counts_by_its_class_too() -> None:
    assert digest(Wrapper(Up())) != digest(Wrapper(Down()))


@dataclass(frozen=True)
class Grown:
    size: int = 1
    shape: str = field(default="round", metadata={"added_later": True})


def test_a_field_added_later_counts_where_it_is_not_at_its_default() -> None:
    before = {"class": f"{Grown.__module__}.Grown", "size": 2}
    assert digest(Grown(2)) == digest(before)
    assert digest(Grown(2, "square")) == digest({**before, "shape": "square"})


def test_fits_are_found_again_under_the_identities_they_were_made_with() -> None:
    from fastmtl.training.config import FitConfig

    assert digest(FitConfig()) == "b0e7c4516a158d6a"
    assert digest(FitConfig(optimizer="adadelta")) != digest(FitConfig())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_no_identity_because_they_are_not_json(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"lr": value})


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, Up, b"x"])
def test_what_has_no_plain_form_is_refused_rather_than_hashed_by_its_address(value: Any) -> None:
    with pytest.raises(TypeError, match="identity"):
        digest({"value": value})


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "never")
    assert store.find("pool", IDENTITY) is None
    assert not (tmp_path / "never").exists()


def test_the_manifest_is_written_after_the_build_and_holds_identity_and_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen: list[list[str]] = []

    def build(out: Path) -> dict[str, Any]:
        (out / "weights").write_text("w")
        seen.append(sorted(p.name for p in out.iterdir()))
        assert store.find("proxy", IDENTITY) is None
        return {"flops": 5.0}

    artifact = store.get("proxy", IDENTITY, build)
    assert seen == [["weights"]]
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert manifest["identity"] == IDENTITY
    assert manifest["records"]["flops"] == 5.0
    assert manifest["records"]["wall_s"] >= 0
    assert store.find("proxy", IDENTITY) is not None


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_a_build_that_raises_leaves_nothing_and_the_next_one_starts_clean(tmp_path: Path, error: BaseException) -> None:
    store = Store(tmp_path)

    def fail(out: Path) -> None:
        (out / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        store.get("pool", IDENTITY, fail)
    assert [p.name for p in (tmp_path / "pool").iterdir() if p.is_dir()] == []
    built = store.get("pool", IDENTITY, write)
    assert not built.hit
    assert not (built.path / "half").exists()


def test_a_folder_without_a_manifest_is_not_taken_for_a_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stray = tmp_path / "pool" / digest(IDENTITY)
    stray.mkdir(parents=True)
    (stray / "half").write_text("x")
    built = store.get("pool", IDENTITY, write)
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
print(Store(root).get("stage", {"x": 1}, build).hit)
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
    assert store.find("stage", {"x": 1}) is None
    artifact = store.get("stage", {"x": 1}, write)
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
    path = store.get("pool", IDENTITY, write).path
    monkeypatch.chdir(os.sep)
    assert store.find("pool", IDENTITY) is not None
    assert path.is_absolute()
