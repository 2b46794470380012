"""`fastmtl help KEY`: every key of every option has a meaning, and the default that it names is the composed one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from fastmtl.cli.compose import conf_dir
from fastmtl.cli.explain import Reference
from fastmtl.cli.messages import nodes
from fastmtl.errors import UserError
from fastmtl.options import describe
from tests.helpers.cli import run_here
from tests.helpers.config import PRESETS, all_keys, composed
from tests.test_option_errors import bases, hint_of

REFERENCE = Reference(Path(conf_dir()))
COMPOSED = {key: value for key, value in nodes(composed()) if key.rpartition(".")[2] not in ("_target_", "_recursive_")}
GROUPS = sorted({path.parent.relative_to(conf_dir()).as_posix() for path in Path(conf_dir()).glob("*/**/*.yaml")})


@pytest.mark.parametrize("key", sorted({*COMPOSED, *(key for _, key in all_keys())}))
def test_every_key_has_a_meaning(key: str) -> None:
    lines = REFERENCE.meaning(key)
    said = [line for line in lines if not line.startswith(("takes ", "with "))]
    assert said, "put a comment beside the key in conf/, or an entry into the Args of its class"
    text = " ".join(REFERENCE.explain(key).split())
    assert all(" ".join(line.split()) in text for line in lines)


def test_the_default_is_the_one_that_composes() -> None:
    for key, value in COMPOSED.items():
        name, _, default = REFERENCE.explain(key).splitlines()[0].partition("=")
        assert name == key
        if key not in GROUPS and not isinstance(value, dict):
            assert yaml.safe_load(default) == yaml.safe_load(yaml.safe_dump(value)), key


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_its_options_with_what_they_are(group: str) -> None:
    lines = REFERENCE.explain(group).splitlines()
    for path in Path(conf_dir(), group).glob("*.yaml"):
        about = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
        assert about.startswith("# "), f"{path} should begin with a comment"
        assert [f"{group}={path.stem}", *about.split()[1:]] in [line.split() for line in lines[1:]]
    assert (f"{group}=" in lines[0]) == (group not in ("fit", "hydra/launcher", "hydra/job_logging"))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("proxy.fit.epochs", ["Passes over the rows.", "takes a whole number of 1 or more"]),
        ("trainer.strategy", ["takes one of ddp, fsdp"]),
        ("finetune.fit.learning_rate", ["takes a number above 0 and at most 1 or null"]),
        ("bandit.fit.epochs", ["does not apply"]),
        ("bandit.fit.schedule", ["takes one of linear, constant"]),
        ("selection.predictor", ["the file predictor.json", "with selection=predicted_gain"]),
        ("scoring.levels.small.layers", ["The first so many of the encoder's layers alone."]),
        ("selection.scorer.loss", ["takes one of ce, bce"]),
    ],
)
def test_what_is_said_is_of_the_right_place(key: str, said: list[str]) -> None:
    assert set(said) <= set(REFERENCE.meaning(key))


def test_types_in_words_are_those_of_error_messages() -> None:
    """They are read from the source, where errors have the imported class: the two must not part."""
    compared = 0
    for _, target, key in bases():
        takes = [line.removeprefix("takes ") for line in REFERENCE.meaning(key) if line.startswith("takes ")]
        if target and takes and REFERENCE.written[key][0].target == target:
            field = getattr(get_object(target), "__pydantic_fields__", {}).get(key.rpartition(".")[2])
            assert takes == [getattr(field, "description", None) or describe(hint_of(target, key))], key
            compared += 1
    assert compared > 40


def test_the_overview_has_every_plain_key_and_group() -> None:
    lines = REFERENCE.overview().splitlines()
    names = {line.replace("=", " ").split()[0] for line in lines if line}
    assert {key for key in COMPOSED if "." not in key} | set(PRESETS) <= names
    assert len(lines) <= 30


def test_an_unknown_key_is_one_line_with_the_nearest(tmp_path: Path) -> None:
    ended = run_here(tmp_path, "help", "proxy.fit.epoch")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("fastmtl help: 'proxy.fit.epoch' is not a key of the configuration; did you mean ")
    assert "'proxy.fit.epochs'" in ended.err
    for key, said in {"encoders": "did you mean 'encoder'", "xxxxxxxx": "see fastmtl help"}.items():
        with pytest.raises(UserError, match=said):
            REFERENCE.explain(key)
    with pytest.raises(UserError, match=r"did you mean '[\w.]*learning_rate'"):
        REFERENCE.explain("learning_rate")
