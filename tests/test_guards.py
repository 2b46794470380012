"""What a test leaves behind is named and put back; what libraries keep for themselves is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastmtl.training.config import Hardware, resolve_precision
from tests.helpers import guards
from tests.helpers.cli import command
from tests.helpers.waiting import wait_for

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "GRACE_S", 0.2)


@pytest.mark.parametrize(
    ("leak", "named"),
    [
        (lambda: os.environ.__setitem__("LEFT", "a"), "environment variable LEFT: None became 'a'"),
        (lambda: os.environ.pop("PATH"), "environment variable PATH: '"),
        (lambda: os.chdir(os.sep), "the working folder: "),
        (lambda: torch.set_default_dtype(torch.float64), "default dtype: torch.float32 became torch.float64"),
        (lambda: torch.set_num_threads(torch.get_num_threads() + 2), "torch's threads: "),
    ],
    ids=["variable", "missing variable", "folder", "dtype", "torch's threads"],
)
def test_a_leak_is_named_and_put_back(leak: Callable[[], object], named: str) -> None:
    before = guards.State.now()
    leak()
    (said,) = before.leaks()
    assert named in said
    assert guards.State.now() == before


def test_a_thread_is_named_unless_it_is_on_its_way_out() -> None:
    before, ended = guards.State.now(), threading.Event()
    brief = threading.Thread(target=time.sleep, args=(0.05,))
    stays = threading.Thread(target=ended.wait, name="forgotten")
    brief.start()
    stays.start()
    assert before.leaks() == ["thread 'forgotten'"]
    ended.set()
    stays.join()
    assert before.leaks() == []


@LINUX
def test_a_process_is_named_and_ended_also_when_its_parent_has_gone() -> None:
    before = guards.State.now()
    orphan = subprocess.run(
        ["sh", "-c", "sleep 98 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True, timeout=60,
        start_new_session=True,
    ).stdout.strip()  # fmt: skip
    child = subprocess.Popen(["sleep", "99"])
    wait_for(lambda: guards._command(child.pid) == "sleep 99", 60)
    assert sorted(before.leaks()) == sorted([f"process {child.pid}: sleep 99", f"process {orphan}: sleep 98"])
    assert child.wait(60) == -signal.SIGKILL
    assert before.leaks() == []


def test_waiting_ends_with_the_deadline_or_with_the_process() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"not there after 0\.1 seconds"):
        wait_for(lambda: False, 0.1)
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(pytest.fail.Exception, match="ended with 3"):
        wait_for(lambda: False, 60, process)


INNER = """
import os, subprocess, sys
import pytest

def test_precision():
    import torch
    code = "import torch; print(torch.cpu.get_capabilities()['avx512_bf16'])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert str(torch.cpu.get_capabilities()["avx512_bf16"]) == child == os.environ["EXPECTED"]

def test_leak():
    os.environ["LEFT"] = "1"

@pytest.mark.data("nowhere")
def test_data():
    pass

@pytest.mark.gpu
def test_gpu():
    pass

@pytest.mark.slow
def test_slow(request):
    assert request.node.get_closest_marker("timeout").args == (900,)
"""


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_a_run_is_told_what_the_processor_has_and_applies_markers_and_guards(
    workers: str, tmp_path: Path, root: Path
) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    other = not torch.cpu.get_capabilities().get("avx512_bf16", False)  # than here
    option = "--bf16" if other else "--no-bf16"
    arguments = ["-n", workers, "-q", "-rs", "-p", "no:cacheprovider", "-c", str(root / "pyproject.toml"), "-m", "",
                 f"--rootdir={tmp_path}", "-p", "tests.conftest", option, str(tmp_path)]  # fmt: skip
    outer = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment = {**outer, "EXPECTED": str(other), "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        command(*arguments, module="pytest"), cwd=root, env=environment, capture_output=True, text=True, timeout=100
    )
    assert "3 passed, 2 skipped, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "the test left behind: environment variable LEFT: None became '1'" in ran.stdout
    assert "needs ../shared/nowhere" in ran.stdout
    assert "needs a CUDA device" in ran.stdout


def test_this_run_has_the_precision_that_was_asked_for(pytestconfig: pytest.Config) -> None:
    asked = pytestconfig.getoption("bf16")
    if asked is None:
        pytest.skip("neither --bf16 nor --no-bf16")
    assert resolve_precision("auto", Hardware("cpu")) == ("bf16" if asked else "fp32")
