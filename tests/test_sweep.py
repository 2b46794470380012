"""Sweeps: what their files say, launchers, and that a killed sweep ends in the table of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins

from fastmtl.cli.callback import CompareCells, read_cells
from fastmtl.cli.compose import conf_dir
from fastmtl.cli.sweep import Watch, line, losses, matrix, newest, plan, read, running, summary
from fastmtl.errors import UserError
from tests.helpers.cells import SMALL
from tests.helpers.cli import run_here, start_cli
from tests.helpers.waiting import DEADLINE_S, wait_for

LAUNCHERS = {
    "basic": "BasicLauncher", "joblib": "JoblibLauncher", "submitit_local": "LocalLauncher",
    "submitit_slurm": "SlurmLauncher", "ray": "RayLauncher",
}  # fmt: skip


def sweep(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return start_cli(folder, "-m", *SMALL, "hydra.sweep.dir=sweep", *arguments)


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    cells = [[f"selection={s}", f"budget={b}", f"seed={n}"] for s in ("none", "random") for b in (5, 9) for n in (0, 1)]
    plan(tmp_path, cells, [f"fastmtl {' '.join(cell)}" for cell in cells])
    return tmp_path


def test_the_matrix_has_a_mark_for_every_state_and_a_killed_cell_does_not_run_for_ever(planned: Path) -> None:
    assert summary(read(planned)) == "8 cells: 8 queued"
    with running(planned / "0") as status:
        status |= {"state": "done", "artifacts": 3, "hits": 1, "score": "accuracy 61.2"}
    with running(planned / "1") as status:
        status |= {"state": "found", "artifacts": 3, "hits": 3, "score": "accuracy 59.9"}
    with running(planned / "2") as status:
        status |= {"state": "failed", "error": "no such thing"}
    code = (
        "import sys, time, pathlib, fastmtl.cli.sweep as s\nwith s.running(pathlib.Path(sys.argv[1])): time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(planned / "3")])
    try:
        wait_for((planned / "3/status.json").exists, 60, process)
        assert read(planned)[3].state == "running"
        assert "about" in summary(read(planned))
    finally:
        process.kill()
        process.wait()
    cells = read(planned)
    assert [cell.state for cell in cells] == ["done", "found", "failed", "stopped", *["queued"] * 4]
    assert summary(cells) == "8 cells: 2 done (1 found), 1 failed, 1 stopped, 4 queued"
    rows = [[box.strip() for box in row.split("|")[1:-1]] for row in matrix(cells).splitlines()]
    assert rows[0] == ["selection", "budget=5", "budget=9"]
    assert rows[2:4] == [["none", "#=", "x?"], ["random", "..", ".."]]
    assert line(cells[0], cells) == ("[1/8] selection=none budget=5 seed=0 accuracy 61.2 (1 of 3 artifacts found), 0 s")
    assert [text.splitlines()[1].strip() for text in losses(cells)] == [
        f"repeat: fastmtl selection=none budget=9 seed={seed}" for seed in (0, 1)
    ]


def test_an_override_that_only_removes_is_one_of_a_cell(tmp_path: Path) -> None:
    plan(tmp_path, [["~debug", "seed=0", "a=b=c"], ["~debug", "seed=1", "a=b=c"]], ["fastmtl 0", "fastmtl 1"])
    cells = read(tmp_path)
    assert [cell.overrides for cell in cells] == [{"~debug": "", "seed": str(n), "a": "b=c"} for n in (0, 1)]
    assert ".." in matrix(cells)


def test_a_watch_tells_every_cell_that_ended_once(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(planned)
    watch.start()
    for n in range(8):
        with running(planned / str(n)) as status:
            status |= {"state": "done", "artifacts": 1}
    watch.stop()
    assert [text.split("]")[0] for text in capsys.readouterr().out.splitlines()] == [f"[{n}/8" for n in range(1, 9)]


def test_a_folder_that_is_swept_again_forgets_what_was_in_it(planned: Path) -> None:
    with running(planned / "7") as status:
        status |= {"state": "failed", "error": "old"}
    (planned / "7/result.json").write_text("{}")
    plan(planned, [["seed=0"]], ["fastmtl seed=0"])
    assert [cell.state for cell in read(planned)] == ["queued"]
    assert read_cells(planned) == []


def test_the_newest_sweep_is_found_and_a_folder_without_one_refused(tmp_path: Path) -> None:
    for day in ("2026-01-02/10", "2026-01-10/09"):
        plan(tmp_path / "sweeps" / day, [["seed=0"]], ["fastmtl seed=0"])
    assert newest(tmp_path) == tmp_path / "sweeps/2026-01-10/09"
    assert newest(tmp_path / "sweeps/2026-01-02/10").name == "10"
    with pytest.raises(UserError, match="has no sweep; give the folder of one"):
        newest(tmp_path / "sweeps")


def test_a_default_may_be_removed_in_a_sweep(tmp_path: Path) -> None:
    ended = run_here(tmp_path, "-m", "~debug", "seed=0,1", "stage=pool", "encoder=tiny", "hydra.sweep.dir=sweep",
                     "hydra.callbacks.comparison.report=false")  # fmt: skip
    assert ended.code == 0, ended.err
    assert [cell.state for cell in read(tmp_path / "sweep")] == ["done", "found"]
    assert all("~debug" in cell.overrides for cell in read(tmp_path / "sweep"))


# --- launchers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def composed() -> Iterator[Any]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        yield lambda *overrides: hydra_compose("config", list(overrides), return_hydra_config=True)


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher")  # pytest sets aside the filter that the command sets for it
@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_is_made(name: str, composed: Any) -> None:
    cfg = composed(f"hydra/launcher={name}")
    if name == "ray":
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    assert type(Plugins.instance()._instantiate(cfg.hydra.launcher)).__name__ == LAUNCHERS[name]


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher")
@pytest.mark.parametrize("name", [name for name in LAUNCHERS if name != "basic"])
def test_a_launcher_without_its_package_asks_for_it(
    name: str, composed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = composed(f"hydra/launcher={name}", f"hydra.sweep.dir={tmp_path}")
    cfg.hydra.launcher._target_ = f"of_no_package.{name}.Launcher"
    with pytest.raises(SystemExit) as stop:
        CompareCells().on_multirun_start(cfg)
    assert stop.value.code == 2
    extra = "ray" if name == "ray" else "launchers"
    assert capsys.readouterr().err == (
        f"fastmtl: hydra/launcher={name} needs its package; pip install 'fastmtl[{extra}]'\n"
    )


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("experiment=glob(nope*)", "the sweep has no cells"),
        ("budget='interval(1,5)'", "does not support sweep type"),
    ],
)
def test_a_sweep_without_cells_is_refused(
    override: str, told: str, composed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = composed(f"hydra.sweep.dir={tmp_path}")
    cfg.hydra.overrides.task = [override.replace("'", "")]
    with pytest.raises(SystemExit) as stop:
        CompareCells().on_multirun_start(cfg)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


MIXED = ["selection=none", "budget=10,20", "seed=0,-1"]
"""Two equal cells, of which one is computed, and two that fail."""


def check_mixed(folder: Path, code: int | None, out: str) -> None:
    assert code == 2, out
    assert sorted(cell.state for cell in read(folder / "sweep")) in (
        ["done", "failed", "failed", "found"], ["done", "done", "failed", "failed"],  # two at a time share the pool
    )  # fmt: skip
    assert len(list(folder.glob("outputs/artifacts/finetune/*/manifest.json"))) == 1
    assert len({result["id"] for result in read_cells(folder / "sweep")}) == 1
    assert out.count("fastmtl: failed: seed=-1 does not fit; use a whole number") == 2
    assert out.count("repeat: fastmtl") == 2
    assert "2 of 4 cells did not finish" in out
    assert "Traceback" not in out
    assert "Warning" not in out


def test_equal_cells_are_computed_once_and_failing_ones_told_at_the_end(tmp_path: Path) -> None:
    ended = run_here(tmp_path, "-m", *SMALL, "hydra.sweep.dir=sweep", *MIXED)
    check_mixed(tmp_path, ended.code, ended.out)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_do_as_the_basic_one_does(tmp_path: Path, launcher: str) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    process = sweep(tmp_path, f"hydra/launcher={launcher}", *MIXED)
    out, _ = process.communicate(timeout=DEADLINE_S)
    check_mixed(tmp_path, process.returncode, out)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_an_interrupt_stops_the_sweep_and_its_cells(tmp_path: Path, launcher: str) -> None:
    process = sweep(tmp_path, f"hydra/launcher={launcher}", "selection=none", "seed=0,1", "finetune.fit.epochs=100000")
    drafts = tmp_path / "outputs/artifacts/finetune"
    wait_for(lambda: list(drafts.glob(".*.draft")), process=process)
    time.sleep(5)  # Lightning's loop has an answer of its own to an interrupt
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert "rerun the same command to resume" in out
    wait_for(lambda: all(cell.state != "running" for cell in read(tmp_path / "sweep")), 60)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_sweep_killed_twice_ends_in_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    arms = ["selection=none,random,feature_similarity", "budget=20,40", "seed=range(4)"]
    rng = random.Random(0)
    tables = {}
    for name, kills in (("undisturbed", 0), ("killed", 2)):
        folder = tmp_path / name
        folder.mkdir()
        for _ in range(kills):
            process = sweep(folder, *arms)
            wanted = rng.randrange(1, 20)
            wait_for(lambda: (folder / "sweep/cells.json").exists() and ended(folder) >= wanted, process=process)  # noqa: B023
            time.sleep(rng.uniform(0, 3))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out, _ = (process := sweep(folder, *arms)).communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, out
        assert [cell.state in ("done", "found") for cell in read(folder / "sweep")] == [True] * 24
        tables[name] = table(read_cells(folder / "sweep"))
        if kills:
            assert any(cell.state == "found" for cell in read(folder / "sweep")[:8])
    assert tables["killed"] == tables["undisturbed"]


def ended(folder: Path) -> int:
    return sum(cell.state in ("done", "found") for cell in read(folder / "sweep"))


def table(results: list[dict[str, Any]]) -> str:
    """What the sweep prints, without its seconds."""
    from fastmtl.reporting.report import comparison

    plain = json.loads(json.dumps(results))
    for result in plain:
        for costs in (result["total"], *result["stages"]):
            costs["wall_s"] = 0.0
    return comparison(plain)
