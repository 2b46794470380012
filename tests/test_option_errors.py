"""Bad values made from the types: each is one line that names key, value and fix, and exit code 2, for every key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hydra.utils import get_object
from pydantic.fields import FieldInfo

from fastmtl.cli.compose import build, in_words
from fastmtl.cli.messages import CONFIG_ERRORS, in_one_line
from fastmtl.errors import UserError
from fastmtl.relations.predictor import GainPredictor
from fastmtl.reporting.result import study_folder
from fastmtl.training.config import FitConfig
from tests.helpers.cli import run_here
from tests.helpers.config import changed, composed, keys_of, options

FIX = re.compile(r"; (use|give|pass|name|choose|write|did you mean|the options are|set|point|lower|raise|drop|see) ")
"""Every message says what to do, behind what is wrong."""

NEEDED = {
    "data=files": ("data.config=tasks.yaml", "primary=tickets"),
    "data=glue_local": ("data.root=glue",),
    "data=pile": ("data.root=glue",),
    "encoder=auto": ("encoder.name=any/encoder",),
    "sampling=ratio": ("sampling.ratios=[5,1]",),
    "selection=hand_picked": ("selection.selector.tasks=[mails]",),
    "selection=predicted_gain": ("selection.predictor=predictor.json",),
}
"""What an option needs beside itself."""


# --- keys, types, bad values ---------------------------------------------------------------------------------------


def bases() -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(overrides, class path, key) of every key, each once, with the first option that has it."""
    seen: set[tuple[str, str]] = set()
    for one in options():
        base = (*one, *NEEDED.get("".join(one), ()))
        for key, target in keys_of(one).items():
            if (target, key) not in seen and not key.startswith("logger") and key not in ("experiment", "debug"):
                seen.add((target, key))
                yield base, target, key


def hint_of(target: str, key: str) -> Any:
    """The annotation of an option: of its class, or of the function that makes it."""
    made = FitConfig if target.endswith("by_batches") else get_object(target)
    name = key.rpartition(".")[2]
    if (fields := getattr(made, "__pydantic_fields__", None)) is None:
        return get_type_hints(made, include_extras=True)[name]
    return Annotated[(fields[name].annotation, *fields[name].metadata, None)]


def parts(hint: Any) -> Iterator[Any]:
    """The types and bounds that an annotation is made of."""
    if get_origin(hint) in (Annotated, Union, UnionType):
        for inner in get_args(hint):
            yield from parts(inner)
    elif isinstance(hint, FieldInfo):
        yield from hint.metadata
    else:
        yield hint


def wrong_type(hint: Any) -> str:
    """A text where none fits, a list in place of a text, a number in place of an object."""
    known = set(parts(hint))
    return "5" if Any in known else "[1,2]" if str in known else "nonsense"


def beyond(hint: Any) -> Iterator[str]:
    """The nearest values outside its range, whole ones for whole numbers."""
    if get_origin(hint) is tuple:
        inner, *more = get_args(hint)
        count = 1 if Ellipsis in more else 1 + len(more)
        yield from (f"[{','.join([value] * count)}]" for value in beyond(inner))
        return
    found = list(parts(hint))
    for kind, side, how in ((Ge, "ge", max), (Gt, "gt", max), (Le, "le", min), (Lt, "lt", min)):
        if marks := [getattr(mark, side) for mark in found if isinstance(mark, kind)]:
            yield f"{how(marks) + {Ge: -1, Le: 1}.get(kind, 0)}"


PLAIN = {
    "primary": ["[1,2]", "nobody"],
    "budget": ["nonsense", "0", "1.5", "true"],
    "seed": ["nonsense", "-1", "0.5", "true"],
    "study": ["[1,2]", "../up"],
    "stage": ["[1,2]", "nonsense"],
    "mixing": ["nonsense"],
    "finetune.keep_selected": ["nonsense", "-0.1", "1.1", "true"],
    "multitask.heads": ["nonsense", "[1,2]", "{x: [nobody]}", "{x: [prices,tickets]}", "{x: [prices], y: [prices]}"],
    "callbacks": ["nonsense"],
    "paths.output": ["[1,2]", "5"],
    "paths.artifacts": ["[1,2]", "5", "/dev/null/x"],
    "paths.keep_weights": ["nonsense", "5"],
    "data.primary": ["[1,2]", "nobody"],
    "data.rows_per_task": ["nonsense", "1", "2.5", "[1,2]", "{mails: 1}"],
    "data.leakage": ["nonsense", "[1,2]"],
    "data.config": ["[1,2]", "5", "nowhere.yaml"],
    "data.root": ["[1,2]", "5", "nowhere"],
    "data.tasks": ["nonsense", "[nobody]", "[1,2]"],
}
"""Of values that are no options of a class: of a wrong type, and beyond what there is."""


def rows() -> Iterator[Any]:
    for base, target, key in bases():
        for value in PLAIN[key] if not target else [wrong_type(hint_of(target, key)), *beyond(hint_of(target, key))]:
            yield pytest.param(base, key, value, id=f"{key}={value} {' '.join(base[:1])}")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files that options need, in which the tests of this module work."""
    folder = tmp_path_factory.mktemp("errors")
    (folder / "glue").mkdir()
    (folder / "tasks.yaml").write_text(TASKS)
    GainPredictor(("main/size",), (0.0,), (1.0,), (1.0,), 0.0).save(folder / "predictor.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    assert sorted(path.name for path in folder.iterdir()) == ["glue", "predictor.json", "tasks.yaml"]


TASKS = """
tasks:
- {name: tickets, kind: classification, text: body, labels: [no, yes], splits: {train: t.csv, validation: t.csv}}
- {name: prices, kind: regression, text: body, splits: {train: t.csv}}
"""


def told(base: tuple[str, ...], override: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of `fastmtl BASE OVERRIDE`."""
    with pytest.raises(SystemExit) as stop, in_one_line("fastmtl"):
        run(base, override)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.startswith("fastmtl: ")
    assert err.count("\n") == 1
    return err


def run(base: tuple[str, ...], override: str) -> None:
    """The steps of the entry point up to the first stage; `base` is composed once for all."""
    try:
        grouped = override.partition("=")[0] in ("mixing", "callbacks")
        cfg = composed(*base, override) if grouped else changed(base, override)
        build(cfg)
        study_folder(cfg.study, cfg.paths.output)
    except CONFIG_ERRORS as error:
        raise UserError(in_words(error)) from error


@pytest.mark.parametrize(("base", "key", "value"), rows())
def test_a_bad_value_is_one_line_with_key_value_and_fix(
    base: tuple[str, ...], key: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told(base, f"{key}={value}", capsys)
    named = "primary" if key == "data.primary" else key  # which is what it is the default of
    assert re.search(rf"(?<![\w.]){re.escape(named)}\b(?!\.\w)", line), line
    assert any(one.lower() in line.lower() for one in re.split("[^\\w./-]+", value) if one)
    assert FIX.search(line), line


@pytest.mark.parametrize(
    ("base", "key"), [pytest.param(base, key, id=f"{key} {' '.join(base[:1])}") for base, _, key in bases()]
)
def test_a_misspelt_key_is_one_line_with_the_right_one(
    base: tuple[str, ...], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told(base, f"{key}z=1", capsys)
    assert f"'{key}z' is not a key of the configuration; did you mean '{key}'?" in line


# --- the command as a whole ------------------------------------------------------------------------------------------

WHOLE = [
    (["proxy.fit.epochs=0"], "proxy.fit.epochs=0 does not fit; use a whole number of 1 or more"),
    (["+proxy.fit.epoch=3"], "proxy.fit.epoch is unknown; the options are epochs"),
    (["proxy.fit.epoch=3"], "'proxy.fit.epoch' is not a key of the configuration; did you mean 'proxy.fit.epochs'?"),
    (["proxy.encoder=5"], "proxy.encoder=5 does not fit; use an option of its group"),
    (["proxy.encoder=nobody"], "proxy.encoder=nobody is not an option; choose from auto, "),
    (["selection=autosem", "bandit.fit.epochs=3"], "bandit.fit.epochs=3 does not apply; use null"),
    (["+bandit.fit.epochs=3"], "bandit.fit.epochs=3 does not apply"),
    (["relations.fit.epochs=3"], "relations.fit.epochs=3 does not apply"),
    (["bandit.policy.rounds=3"], "bandit.policy.rounds=3 does not apply; use null, and set bandit.rounds"),
    (["multitask.fit.early_stopping=3"], "multitask.fit.early_stopping=3"),
    (["mixing=autosem_grid", "mixing.random_starts=3"], "mixing.random_starts=3 does not apply to a grid; use null"),
    (["mixing=autosem_equal", "mixing.random_starts=3"], "mixing.random_starts=3 does not apply to a grid; use null"),
    (["protocol=paper", "protocol.holdout=0.2"], "'protocol.holdout' is not a key of the selected options"),
    (["selection=random", "+selection.scorer={_target_: fastmtl.scoring.discriminator.Discriminator}"],
     "selection=random: its selector reads no scores; drop selection.scorer"),
    (["data.source.seed=-1"], "data.source.seed=-1 does not fit; use a whole number of 0 or more"),
    (["stage=nowhere"], "stage='nowhere' is unknown; choose from pool, "),
    (["study=../up"], "study='../up' cannot name a folder; use letters"),
    (["study=[a,b]"], "study=['a', 'b'] does not fit; use a text or null"),
    (["paths.keep_weights=maybe"], "paths.keep_weights='maybe' does not fit; use true or false"),
    (["paths.output=[a,b]"], "paths.output=['a', 'b'] does not fit; use a text"),
    (["paths.output=/dev/null/x"], "paths.output='/dev/null/x': "),
    (["paths.output=/proc/x"], "paths.output='/proc/x': "),
    (["paths.output=a_file"], "paths.output='a_file': "),
    (["paths.artifacts=/dev/null"], "paths.artifacts='/dev/null' cannot be written to; name a folder of yours"),
    (["paths.artifacts=/proc/x"], "paths.artifacts='/proc/x' cannot be written to"),
    (["paths.artifacts=a_file"], "paths.artifacts='a_file' cannot be written to; name a folder of yours"),
    (["paths.artifacts=a_file/below"], "paths.artifacts='a_file/below' cannot be written to; name a folder of yours"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), WHOLE, ids=[" ".join(overrides) for overrides, _ in WHOLE])
def test_the_command_refuses_in_one_line_and_leaves_nothing(overrides: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    ended = run_here(tmp_path, "debug=smoke", *overrides)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"fastmtl: {said}")
    assert ended.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system says it of one that is mounted read-only, which no mode of a folder can imitate for root."""

    def access(path: Any, mode: int, real: Any = os.access) -> bool:
        return real(path, mode) and not (mode & os.W_OK and Path(path) == tmp_path / "mounted")

    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os, "access", access)
    ended = run_here(tmp_path, "debug=smoke", "paths.artifacts=mounted/artifacts")
    assert ended.code == 2
    assert ended.err == "fastmtl: paths.artifacts='mounted/artifacts' cannot be written to; name a folder of yours\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["mounted"]


def test_a_run_that_was_refused_removes_no_folder_with_anything_in_it(tmp_path: Path) -> None:
    (tmp_path / "outputs/runs").mkdir(parents=True)
    (tmp_path / "outputs/runs/mine").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine").touch()
    run_here(tmp_path, "budget=0")
    run_here(tmp_path, "budget=0", "hydra.run.dir=here")
    assert {path.name for path in tmp_path.rglob("*")} >= {"outputs", "runs", "mine", "here"}
    assert [path.name for path in (tmp_path / "outputs/runs").iterdir()] == ["mine"]
