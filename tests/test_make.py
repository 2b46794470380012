"""The Makefile's own logic, with an interpreter that only notes what it is asked for."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

PYTHON = """#!/bin/sh
echo "$*" >>calls
case "$*" in
  "-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=folder, env=env, capture_output=True, text=True)


def calls(folder: Path) -> str:
    """What the interpreter was asked for since the last look."""
    text = (folder / "calls").read_text() if (folder / "calls").exists() else ""
    (folder / "calls").write_text("")
    return text


def test_plain_make_lists_every_target() -> None:
    text = make(ROOT).stdout
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert targets == set(re.findall(r"^make (\S+)", text, flags=re.M))
    assert {"demo", "test", "check"} <= targets


def test_set_up_happens_once_and_again_when_its_inputs_change(checkout: Path) -> None:
    python = f"PYTHON={checkout / 'python'}"
    assert make(checkout, "setup", python).returncode == 0
    first = calls(checkout)
    assert "-m venv" in first
    assert first.count("-m pip install") == 1

    assert make(checkout, "setup", python).returncode == 0
    assert calls(checkout) == ""

    later = (checkout / ".venv/.installed").stat().st_mtime + 5
    os.utime(checkout / "constraints.txt", (later, later))
    assert make(checkout, "setup", python).returncode == 0
    again = calls(checkout)
    assert "-m venv" not in again
    assert "-m pip install" in again


def test_a_copied_environment_is_made_anew(checkout: Path) -> None:
    python = f"PYTHON={checkout / 'python'}"
    make(checkout, "setup", python)
    (checkout / ".venv/.installed").write_text("/somewhere/else\n")
    calls(checkout)
    assert make(checkout, "setup", python).returncode == 0
    assert "-m venv --clear" in calls(checkout)


def test_an_old_or_absent_python_is_said_in_one_line(checkout: Path) -> None:
    (checkout / "python").write_text("#!/bin/sh\nexit 1\n")
    for python in (str(checkout / "python"), "no-such-python"):
        done = make(checkout, "setup", f"PYTHON={python}")
        assert done.returncode != 0
        ours = [line for line in done.stderr.splitlines() if not line.startswith("make")]
        assert len(ours) == 1
        assert "Python 3.11 or newer" in ours[0]
    assert not (checkout / ".venv").exists()


def test_a_failing_venv_module_is_said_in_one_line(checkout: Path) -> None:
    (checkout / "python").write_text('#!/bin/sh\necho trace >&2\n[ "$1" = -c ]\n')
    done = make(checkout, "setup", f"PYTHON={checkout / 'python'}")
    ours = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0
    assert len(ours) == 1
    assert "python3-venv" in ours[0]


def test_gc_is_the_verb(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    assert make(checkout, "setup", f"PYTHON={checkout / 'python'}").returncode == 0
    (checkout / ".venv/bin/fastmtl").write_text('#!/bin/sh\necho "$@"\n')
    (checkout / ".venv/bin/fastmtl").chmod(0o755)
    done = make(checkout, "gc", "ARTIFACTS=there", "ARGS=--yes --older-than 30d", f"PYTHON={checkout / 'python'}")
    assert done.stdout == "gc --store there --yes --older-than 30d\n", done.stderr


def test_clean_keeps_outputs(checkout: Path) -> None:
    for name in (".venv", "dist", "outputs/artifacts/pool/x/__pycache__", "fastmtl/__pycache__"):
        (checkout / name).mkdir(parents=True)
    assert make(checkout, "clean").returncode == 0
    assert not [name for name in (".venv", "dist", "fastmtl/__pycache__") if (checkout / name).exists()]
    assert (checkout / "outputs/artifacts/pool/x/__pycache__").exists()
