"""One program: its help is a screen and quick, its verbs are found, and what is mistyped is one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastmtl.cli.main import main
from fastmtl.cli.verbs import OVERVIEW, VERBS
from fastmtl.reporting.report import BASELINES, FILTERS
from tests.helpers.cli import Ended, run_here

Help = Callable[..., str]

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Help:
    def text(*arguments: str) -> str:
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--help"])
        assert stop.value.code == 0
        return capsys.readouterr().out

    return text


def test_the_help_is_one_screen(tmp_path: Path) -> None:
    for arguments in (["--help"], ["-h"], ["budget=3", "--help"]):
        assert run_here(tmp_path, *arguments) == Ended(0, f"{OVERVIEW}\n", "")
    lines = OVERVIEW.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_is_one_screen_with_an_example(verb: str, help_of: Help) -> None:
    text = help_of(verb)
    assert text.startswith(f"usage: fastmtl {verb}")
    assert f"\nexample: {'eval' if verb == 'completion' else f'fastmtl {verb}'}" in text
    assert len(text.splitlines()) <= 40


def test_the_help_of_report_names_what_there_is(help_of: Help) -> None:
    text = " ".join(help_of("report").split())
    assert f"(default: {', '.join(BASELINES)})" in text
    assert f"only cells with it: {', '.join(FILTERS[:-1])} or {FILTERS[-1]}" in text


QUICK = [["--help"], ["help", "proxy.fit.epochs"], ["help"], ["reports"], *([verb, "--help"] for verb in VERBS)]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_help_and_errors_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys, time
from fastmtl.cli.main import main
try: main({arguments})
except SystemExit: pass
heavy = {{'torch', 'transformers', 'pytorch_lightning', 'datasets', 'sklearn', 'pandas'}} & set(sys.modules)
print(f'cpu_s={{time.process_time():.2f}} heavy={{sorted(heavy)}}')"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    last = ran.stdout.splitlines()[-1]
    assert last.endswith("heavy=[]")
    assert float(last.split()[0].removeprefix("cpu_s=")) < 2  # of the processor: a busy machine does not count


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["reports", "mine"], "fastmtl: 'reports' is neither a verb nor KEY=VALUE; did you mean 'report'?"),
        (["xyz"], "fastmtl: 'xyz' is neither a verb nor KEY=VALUE; see fastmtl --help"),
        (["status", "nowhere"], "fastmtl status: 'nowhere' has no sweep; give the folder of one, or"),
        (["report"], "fastmtl report: the following arguments are required: study; see fastmtl report --help"),
        (["tune", "a", "b=1,2", "--trials", "0"],
         "fastmtl tune: argument --trials: '0' is not a whole number of 1 or more; see"),
    ],
)  # fmt: skip
def test_what_is_mistyped_is_one_line(arguments: list[str], told: str, tmp_path: Path) -> None:
    ended = run_here(tmp_path, *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(told)
    assert not list(tmp_path.iterdir())


def test_a_value_that_is_named_as_a_verb_is_a_value(tmp_path: Path) -> None:
    ended = run_here(tmp_path, "primary=report", "encoder=tiny")
    assert ended.err.startswith("fastmtl: primary='report'")


def test_hydras_own_flags_are_hydras(tmp_path: Path) -> None:
    argv = list(sys.argv)
    assert "budget: 7\n" in run_here(tmp_path, "--cfg", "job", "budget=7").out
    assert "--hydra-help" in run_here(tmp_path, "--hydra-help").out
    assert sys.argv == argv


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_verbs_keys_options_and_files(tmp_path: Path) -> None:
    (tmp_path / "a_study").mkdir()
    script = f"""
fastmtl() {{ {sys.executable} -m fastmtl.cli.main "$@"; }}
eval "$(fastmtl completion bash)"
complete -p fastmtl | grep -c _fastmtl_complete
try() {{
  COMP_LINE="$*"; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _fastmtl_complete; echo "${{COMPREPLY[*]}}"
}}
try fastmtl rep
try fastmtl -m selection=feat
try fastmtl report a_
"""
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    found = ["1", "report", "selection=feature_similarity selection=feature_similarity_bce", "a_study"]
    assert ran.stdout.splitlines() == found, ran.stderr
