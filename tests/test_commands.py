"""Every command that a document shows is one that can be run: the shell, the parsers and the configuration take it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override

from fastmtl import compose
from fastmtl.cli.main import main
from fastmtl.cli.verbs import VERBS
from fastmtl.pipelines.checks import check_measured
from fastmtl.relations.predictor import GainPredictor
from tests.conftest import has_cuda
from tests.helpers.documents import ROOT, Shown, files, shown

SHOWN = shown()


@pytest.fixture
def workplace(command: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the document and README show, and those that they speak of."""
    for name, text in (files("docs/tutorials/own_data.md") | files(command.document)).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)  # of another document
    (tmp_path / "GLUE_FOLDER").mkdir()
    (tmp_path / "outputs/relations/mine").mkdir(parents=True)
    GainPredictor(("main/size",), (0.0,), (1.0,), (1.0,), 0.0).save(tmp_path / "outputs/relations/mine/predictor.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


class Parsed(BaseException):
    """Ends a program once its arguments are read."""


def parsed(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What a verb's own parser makes of them; a mistake there exits with 2."""

    def stop(name: str) -> None:
        real = getattr(argparse.ArgumentParser, name)

        def parse(*given: Any, **more: Any) -> None:
            raise Parsed(real(*given, **more))

        monkeypatch.setattr(argparse.ArgumentParser, name, parse)

    for name in ("parse_args", "parse_intermixed_args"):
        stop(name)
    with pytest.raises(Parsed) as read:
        main(arguments)
    return read.value.args[0]


def cells(overrides: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cells of a sweep in which each of its values occurs."""
    seen: set[str] = set()
    for cell in BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(overrides)), None)[0]:
        if not seen.issuperset(cell):
            seen.update(cell)
            yield cell


def first_values(overrides: Sequence[str]) -> list[str]:
    """Of what is searched, one value each."""

    def first(one: Override) -> str:
        value = one.value()
        return str(value.start) if isinstance(value, IntervalSweep) else next(one.sweep_string_iterator())

    return [
        f"{one.get_key_element()}={first(one)}" if one.is_sweep_override() else str(one.input_line)
        for one in OverridesParser.create().parse_overrides(list(overrides))
    ]


def check(overrides: Sequence[str], *more: str) -> Any:
    """Compose and instantiate as the command does, on the devices that are here."""
    gpus = re.search(r"\btrainer=(gpu|ddp|fsdp|slurm)\b", " ".join(overrides)) and not has_cuda()
    return compose(*overrides, *more, *(["trainer.accelerator=cpu"] if gpus else []))


def run_fastmtl(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments and arguments[0] in VERBS:
        if arguments[1:]:  # alone it is how prose names the verb
            VERB.get(arguments[0], parsed)(arguments, monkeypatch)
        return
    given = get_args_parser().parse_args(list(arguments))
    path = [f"hydra.searchpath=[file://{Path(given.config_dir).resolve()}]"] if given.config_dir else []
    for cell in cells(given.overrides) if given.multirun else [given.overrides]:
        check(cell, *path)


def run_tune(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = parsed(arguments, monkeypatch).overrides
    values = first_values(overrides)
    assert values != overrides, "nothing is searched"
    check(values)


def run_relations(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for task in check(parsed(arguments, monkeypatch).overrides, "budget=1.0").tasks:
        check_measured(task)


def run_make(arguments: Sequence[str], *_: Any) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for argument in arguments:
        name, is_variable, _ = argument.partition("=")
        assert f"$({name})" in makefile if is_variable else re.search(rf"^{name}:|\({name}\)", makefile, re.MULTILINE)


def run_python(arguments: Sequence[str], *_: Any) -> None:
    code = (ROOT / arguments[0]).read_text()
    assert not [one for one in arguments if one.startswith("--") and f'"{one}"' not in code]


VERB = {"tune": run_tune, "relations": run_relations}
RUN = {"fastmtl": run_fastmtl, "make": run_make, "python": run_python}


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_of_a_document_is_taken(command: Shown, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = command.arguments(workplace)
    RUN[program](arguments, monkeypatch)


def test_commands_are_found_in_every_kind_of_place() -> None:
    lines = {(one.document, one.line) for one in SHOWN}
    swept = "selection=none,random,feature_similarity"
    arms = "selection=none,primary_only,random,feature_similarity,full"
    assert {
        ("docs/contributing.md", "make test             # the tests but for the slow ones"),  # in a block
        ("docs/extending.md", "fastmtl --config-dir my_conf selection=bottom_k"),  # in a comment of one
        ("docs/how_to/wandb.md", "make dashboard STUDY=mine ENTITY=you PROJECT=fastmtl"),  # in a sentence
        (
            "conf/hydra/launcher/submitit_local.yaml",
            "OMP_NUM_THREADS=4 fastmtl -m hydra/launcher=submitit_local hydra.sweeper.max_batch_size=2 ...",
        ),
        ("fastmtl/cli/verbs.py", f"fastmtl -m {swept} 'seed=range(3)'"),
        ("fastmtl/cli/report.py", "fastmtl report mine --where primary=rte"),
        ("notebooks/02_compare_selectors.ipynb", f"fastmtl -m study=compare {swept} budget=16,32 'seed=range(3)'"),
        ("experiments/sample_arms/run.sh", f'fastmtl -m experiment=demo {arms} "seed=range(${{SEEDS:-10}})"'),
    } <= lines
    assert any(line.endswith("selection=autosem mixing=autosem_equal") for _, line in lines)  # in a table


def test_files_are_found_by_the_comment_that_names_them() -> None:
    assert "tasks.yaml" in files("docs/tutorials/own_data.md")
    assert {"my_selectors.py", "my_conf/selection/bottom_k.yaml"} <= set(files("docs/extending.md"))


def test_the_shell_takes_quotes_comments_and_variables_away(tmp_path: Path) -> None:
    line = """X=1 fastmtl -m 'seed=range(3)' "a=${SEEDS:-5}" b={c:\\ 1} ...   # a comment"""
    assert Shown("page", line).arguments(tmp_path) == ["fastmtl", "-m", "seed=range(3)", "a=5", "b={c: 1}"]
    with pytest.raises(AssertionError, match="syntax error"):
        Shown("page", "fastmtl seed=range(3)").arguments(tmp_path)
