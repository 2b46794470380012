"""`fastmtl gc`: what a result, a recent artifact or a running process needs stays; it lists before it removes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from fastmtl.cli import gc
from fastmtl.cli.compose import compose
from fastmtl.reporting.result import summarize
from tests.helpers.cells import SMALL
from tests.helpers.cli import Ended, run_here

OLD = time.time() - 40 * 86400
Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An artifact of the kind, made from those of the keys, 40 days ago unless `lately`; its key."""

    def artifact(kind: str, *upstream: str, lately: bool = False, **files: object) -> str:
        key = f"{len(list(tmp_path.glob('outputs/artifacts/*/*'))):016x}"
        folder = tmp_path / "outputs/artifacts" / kind / key
        folder.mkdir(parents=True)
        manifest = {"kind": kind, "key": key, "identity": [kind, 1, [["of", list(upstream)]]], "records": {}}
        for name, content in {"manifest": manifest, **files}.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        (folder / "weights").write_bytes(bytes(2_000_000))
        if not lately:
            for path in (folder / "manifest.json", folder):
                os.utime(path, (OLD, OLD))
        return key

    return artifact


def result(path: Path, *keys: str, study: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"study": study, "stages": [{"stage": "x", "key": key} for key in keys]}))


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("outputs/artifacts/*/*") if not path.name.startswith(".")}


def collect(folder: Path, *arguments: str) -> Ended:
    return run_here(folder, "gc", *arguments)


def test_results_keep_what_they_were_made_from(tmp_path: Path, make: Make) -> None:
    pool, lost = make("pool"), make("pool")
    trial = make("multitask", pool)
    mixing = make("mixing", pool, mixing={"trials": [{"stages": [["multitask", trial]]}]})
    proxy, orphan = make("proxy", pool), make("proxy", lost)
    by_run, by_sweep, by_study = make("finetune", mixing), make("finetune", proxy), make("finetune")
    result(tmp_path / "outputs/runs/a/b/result.json", by_run)
    result(tmp_path / "outputs/sweeps/a/b/0/result.json", by_sweep)
    result(tmp_path / "outputs/studies/mine/0123.json", by_study, study="mine")
    everything = {pool, lost, trial, mixing, proxy, orphan, by_run, by_sweep, by_study}
    dry = collect(tmp_path)
    assert dry.code == 0
    assert kept(tmp_path) == everything
    for name in (f"pool/{lost}", f"proxy/{orphan}"):
        assert f"2.0 MB  {name}  no result needs it\n" in dry.out
    assert dry.out.endswith(
        "2 artifacts and 0 remains, 4.0 MB, in outputs/artifacts; nothing is removed without --yes\n"
    )
    assert collect(tmp_path, "--yes").out.endswith(
        "removed 2 of 2 artifacts and 0 remains, 4.0 MB, in outputs/artifacts\n"
    )
    assert kept(tmp_path) == everything - {lost, orphan}
    assert collect(tmp_path, "--yes").out == "0 artifacts and 0 remains, 0.0 MB, in outputs/artifacts\n"


def test_a_study_that_is_given_up_frees_what_it_alone_needs(tmp_path: Path, make: Make) -> None:
    pool = make("pool")
    mine, yours = make("finetune", pool), make("finetune", pool)
    result(tmp_path / "outputs/studies/mine/0.json", mine, study="mine")
    result(tmp_path / "outputs/sweeps/a/b/0/result.json", mine, study="mine")
    result(tmp_path / "outputs/studies/yours/0.json", yours, study="yours")
    collect(tmp_path, "--study", "mine", "--yes")
    assert kept(tmp_path) == {pool, yours}
    assert (tmp_path / "outputs/studies/mine/0.json").exists()


def test_what_is_recent_stays_with_what_it_was_made_from(tmp_path: Path, make: Make) -> None:
    result(tmp_path / "outputs/runs/a/b/result.json")
    pool = make("pool")
    young, old = make("proxy", pool, lately=True), make("proxy", pool)
    collect(tmp_path, "--yes")
    assert kept(tmp_path) == {pool, young}
    collect(tmp_path, "--yes", "--older-than", "41d")
    assert kept(tmp_path) == {pool, young}
    time.sleep(0.05)
    collect(tmp_path, "--yes", "--older-than", "0m")
    assert kept(tmp_path) == set()
    assert old not in kept(tmp_path)


@pytest.mark.parametrize("lock", ["outputs/artifacts/proxy/.live.lock", "outputs/sweeps/a/b/0/.running"])
def test_nothing_goes_that_a_running_process_may_need(lock: str, tmp_path: Path, make: Make) -> None:
    pool, proxy = make("pool"), tmp_path / "outputs/artifacts/proxy"
    result(tmp_path / "outputs/runs/a/b/result.json")
    for name in (".dead.7.draft", ".live.8.draft", ".dead.resume", "../../sweeps/a/b/0"):
        (proxy / name).mkdir(parents=True)
    os.utime(proxy / ".dead.resume", (OLD, OLD))
    (proxy / ".left.lock").touch()
    with FileLock(tmp_path / lock):
        ended = collect(tmp_path, "--yes")
    live = {".live.8.draft"} if "artifacts" in lock else set()
    assert {path.name for path in proxy.iterdir()} - {".live.lock"} == live
    assert kept(tmp_path) == {pool}
    assert "artifacts stay while a process runs" in ended.out
    collect(tmp_path, "--yes")
    assert kept(tmp_path) == set()


def test_a_run_that_begins_while_one_thinks_keeps_what_it_has(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = make("pool")
    result(tmp_path / "outputs/runs/a/b/result.json")

    def answer(_: str) -> str:
        result(tmp_path / "outputs/runs/c/d/result.json", lost)
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    assert "removed 0 of 1 artifacts" in collect(tmp_path).out
    assert kept(tmp_path) == {lost}


def test_an_artifact_that_is_being_built_again_stays(tmp_path: Path, make: Make) -> None:
    key = make("pool")
    store = gc.Store(tmp_path / "outputs/artifacts", (tmp_path / "outputs",), None, 0)
    with FileLock(store.root / f"pool/.{key}.lock"):
        assert not store.remove(store.root / "pool" / key)
    assert store.remove(store.root / "pool" / key)
    assert not list((store.root / "pool").iterdir())


def test_a_store_without_results_is_left_alone(tmp_path: Path, make: Make) -> None:
    key = make("pool")
    ended = collect(tmp_path, "--yes")
    assert "no results in outputs: artifacts stay; name their folder with --output" in ended.out
    assert kept(tmp_path) == {key}
    for arguments, told in (
        (["--store", "nowhere"], "fastmtl gc: 'nowhere' is no folder; name that of the runs with --store\n"),
        (["--older-than", "soon"], "fastmtl gc: argument --older-than: 'soon' is no age; use 30d, 12h or 0d; see"),
    ):
        ended = collect(tmp_path, *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(told)


def test_a_result_names_everything_that_its_cell_has_read(session_output: Path) -> None:
    exp = compose(*SMALL, "selection=feature_similarity", f"paths.output={session_output}")
    named = set(summarize(exp)["artifacts"])
    assert {f"{one.kind}/{one.key}" for one in exp.artifacts("report")} <= named
    assert {"leakage", "pool", "proxy", "finetune"} <= {name.split("/")[0] for name in named}
    artifacts = gc.Store(session_output / "artifacts", (session_output,), None, 0).artifacts()
    scores = [one.key for one in exp.artifacts("scores") if one.kind == "scores"]
    assert {one.key for one in exp.artifacts("proxy") if one.kind == "proxy"} <= gc.closure(scores, artifacts)
