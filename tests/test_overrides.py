"""What people type, as Hydra is given it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fastmtl.cli.overrides import quote_unicode
from tests.helpers.cli import run_here


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("primary=größe", "größe"),
        ("primary='größe'", "größe"),
        ('study="it\'s größe"', "it's größe"),
        ("study=groß und klein", "groß und klein"),
        ("paths.output=/x/ü=3/a:é", "/x/ü=3/a:é"),
        ("data.tasks=[ größe , b]", ["größe", "b"]),
        ("x=[[ü],{b: [é,ö]}]", [["ü"], {"b": ["é", "ö"]}]),
        ("+x={a: größe,b: 2}", {"a": "größe", "b": 2}),
    ],
)
def test_hydra_reads_the_value_that_was_typed(typed: str, value: object) -> None:
    (quoted,) = quote_unicode([typed])
    assert OverridesParser.create().parse_override(quoted).value() == value


def test_elements_of_a_sweep_stay_apart() -> None:
    parser = OverridesParser.create()
    for typed in ("primary=größe,b", "primary=choice(größe,b)"):
        override = parser.parse_override(quote_unicode([typed])[0])
        assert [str(one).strip("'") for one in override.sweep_string_iterator()] == ["größe", "b"]


@pytest.mark.parametrize("typed", ["seed=range(3)", "a=[x,'y z']", "--config-dir=/ü", "-m", "größe=3", r"a=x\\,ü"])
def test_all_else_stays_as_it_is(typed: str) -> None:
    assert quote_unicode([typed]) == [typed]


def test_tasks_may_have_any_letters(tmp_path: Path) -> None:
    """From the command line to the result."""
    told = []
    for name in ("größe", "猫"):
        for split in ("train", "validation"):
            rows = [json.dumps({"text": word, "label": label}) for word in "abcdef" for label in ("no", "yes")]
            (tmp_path / f"{name}.{split}.jsonl").write_text("\n".join(rows) + "\n")
        files = ", ".join(f"{split}: {name}.{split}.jsonl" for split in ("train", "validation"))
        told.append(f'- {{name: {name}, kind: classification, labels: ["no", "yes"], text: text, splits: {{{files}}}}}')
    (tmp_path / "tasks.yaml").write_text("tasks:\n" + "\n".join(told) + "\n")
    arguments = ["-m", "data=files", "data.config=tasks.yaml", "primary=größe", "selection=none", "encoder=tiny",
                 "finetune.fit.epochs=1", "finetune.fit.precision=fp32", "hydra.sweep.dir=swept", "logger=none",
                 "hydra.callbacks.comparison.report=false"]  # fmt: skip
    ended = run_here(tmp_path, *arguments)
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "swept/0/result.json").read_text())["primary"] == "größe"
