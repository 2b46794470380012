"""`fastmtl doctor`: a line for each thing; what is needed and broken exits with 1, what is optional does not."""

from __future__ import annotations

import os
import tomllib
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from fastmtl.cli import doctor
from fastmtl.cli.compose import compose
from fastmtl.training.config import Hardware, resolve_precision
from tests.helpers.cli import Ended, run_here


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`fastmtl doctor` on a machine with much room, whatever this one has."""
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 7e9}))
    return lambda *arguments: run_here(tmp_path, "doctor", *arguments)


def lines(ended: Ended, state: str) -> list[str]:
    return [line[5:] for line in ended.out.splitlines() if line[:3].strip() == state]


def test_a_machine_that_works_says_what_it_has(examined: Any, tmp_path: Path) -> None:
    ended = examined("encoder=tiny")
    assert (ended.code, ended.err, lines(ended, "BAD")) == (0, "", [])
    assert f"fastmtl {metadata.version('fastmtl')}, torch {metadata.version('torch')}, " in ended.out
    assert f"precision=auto: {resolve_precision('auto', Hardware())}, since bf16 is " in ended.out
    assert f"configuration: primary=chats of {len(compose('encoder=tiny').tasks)} tasks, encoder tiny" in ended.out
    assert f"paths.artifacts: {tmp_path}/outputs/artifacts can be written to, 7.0 GB free" in ended.out
    assert "Hub: not asked, since HF_HUB_OFFLINE is set; what is in " in ended.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["paths.output=a_file"], "configuration: paths.artifacts='a_file/artifacts' cannot be written to; name"),
        (["paths.output=/proc/x"], "paths.output: /proc/x cannot be written to (No such file or directory); name a"),
        (["data=glue_local", "data.root=nowhere"], "configuration: "),
        (["bugdet=3"], "configuration: 'bugdet' is not a key of the configuration; did you mean 'budget'?"),
    ],
)
def test_what_is_broken_is_a_line_and_the_rest_is_still_examined(
    overrides: list[str], said: str, examined: Any, tmp_path: Path
) -> None:
    (tmp_path / "a_file").touch()
    ended = examined("encoder=tiny", *overrides)
    assert (ended.code, ended.err) == (1, "")
    assert any(line.startswith(said) for line in lines(ended, "BAD")), ended.out
    assert "Hub: " in ended.out


def test_a_full_disk_is_broken(examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5e8}))
    ended = examined("encoder=tiny")
    assert ended.code == 1
    assert all(line.endswith(", 0.5 GB free") for line in lines(ended, "BAD"))


def test_missing_packages_are_named_with_what_they_are_for(examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("torchjd", "optuna"):
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)
    ended = examined("encoder=tiny")
    assert ended.code == 1
    assert lines(ended, "BAD") == ["optuna missing: pip install 'fastmtl'"]
    surgery = "torchjd missing, for weighting=pcgrad, cagrad and upgrad: pip install 'fastmtl[surgery]'"
    assert surgery in lines(ended, "--")


def test_a_package_that_cannot_be_imported_is_broken(examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "IMPORTED", ("fastmtl.no_such_module",))
    ended = examined("encoder=tiny")
    assert ended.code == 1
    assert lines(ended, "BAD") == ["packages: ModuleNotFoundError: No module named 'fastmtl.no_such_module'"]


@pytest.mark.parametrize(("answers", "said"), [(True, "answers"), (False, "no answer (no route)")])
def test_the_hub_is_asked_once_and_not_for_long(answers: bool, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def urlopen(request: urllib.request.Request, timeout: float) -> Any:
        asked.append((request.get_method(), timeout))
        if not answers:
            raise urllib.error.URLError("no route")
        return open(os.devnull)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    ((state, text),) = doctor.hub([])
    assert asked == [("HEAD", 3.0)]
    assert state == ("ok" if answers else "--")
    assert said in text


def test_a_gpu_is_named_with_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda n: f"card {n}")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    texts = [text for _, text in doctor.devices([])]
    assert texts[:2] == [
        "trainer.accelerator=auto: GPU: card 0, card 1", "precision=auto: fp16, since bf16 is only emulated by this GPU"
    ]  # fmt: skip


def test_every_extra_says_what_it_is_for(root: Path) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras)
