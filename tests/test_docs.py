"""The documentation: what is read from the source is complete, links lead somewhere, studies are listed."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import fastmtl
from fastmtl.cli.compose import conf_dir
from fastmtl.cli.explain import Reference
from fastmtl.cli.verbs import VERBS
from tests.helpers.documents import ROOT, pages, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/_ext/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def configuration(generated: ModuleType) -> str:
    return str(generated.configuration())


def test_the_reference_has_every_option_of_every_group_once(configuration: str) -> None:
    conf = Path(conf_dir())
    groups = {path.parent.name for path in conf.glob("*/*.yaml")} - {"fit"}
    there = {f"{path.parent.name}={path.stem}" for path in conf.glob("*/*.yaml") if path.parent.name in groups}
    assert sorted(re.findall(r"^\| `(\w+=\w+)` \|", configuration, re.MULTILINE)) == sorted(there)


def test_the_reference_has_every_key_with_its_default_and_meaning(configuration: str) -> None:
    reference = Reference(Path(conf_dir()))
    leaves = [key for key, places in reference.written.items() if not isinstance(places[0].value, dict)]
    leaves = [key for key in leaves if not key.startswith("fit.")]  # which are at proxy.fit and its like
    entries = dict(re.findall(r"^(`.*`)\n: (.*)$", configuration, re.MULTILINE))
    assert all(len(meaning) > 5 and "See its option" not in meaning for meaning in entries.values())
    titles = {title for names in entries for title in re.findall(r"`([^`]+)`", names)}
    for key in leaves:
        own, for_all = reference.title(key), re.sub(r"^\w+\.fit\.", "*.fit.", reference.title(key))
        assert own in titles or for_all in titles, key


def test_the_page_of_commands_has_every_verb_with_its_arguments(generated: ModuleType) -> None:
    text = generated.commands()
    assert re.findall(r"^## `fastmtl (\w+)`$", text, re.MULTILINE) == list(VERBS)
    assert all(meaning for meaning in re.findall(r"^`.*`\n: ?(.*)$", text, re.MULTILINE)), "an argument without help"
    assert "`shell`\n: One of bash, zsh.\n" in text
    for argument in ("`--older-than", "`--where KEY=VALUE`", "`--trials", "`key`"):
        assert argument in text


def test_the_parser_of_a_verb_is_found_without_a_lasting_change(generated: ModuleType) -> None:
    import argparse

    before = argparse.ArgumentParser.parse_args
    assert generated.parser_of("gc").prog == "fastmtl gc"
    assert argparse.ArgumentParser.parse_args is before


def test_what_the_page_on_python_names_is_there(generated: ModuleType) -> None:
    text = generated.interface()
    assert all(re.search(rf"\{{py:\w+\}} fastmtl.{name}\b", text) for name in fastmtl.__all__)
    assert "- `inputs`: See `ScoringInputs`." in text
    assert "{py:class} fastmtl.scoring.base.Scorer" in text


def test_text_of_docstrings_and_comments_says_just_that(generated: ModuleType) -> None:
    assert generated.plain("a*b [x] `c*d` <e> | _f_") == r"a\*b \[x\] `c*d` \<e\> \| \_f\_"
    assert generated.sentence("of each task") == "Of each task."
    assert generated.sentence("fp32, bf16") == "fp32, bf16."


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_what_exists(page: Path, generated: ModuleType) -> None:
    text = generated.fill(page.read_text())
    assert "<!-- generated" not in text
    broken = []
    for target in LINK.findall(re.sub(r"`[^`]*`", "", prose(text))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in _anchors(generated.fill(there.read_text()))):
            broken.append(target)
    assert not broken


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_a_study_leads_from_its_page_to_where_its_readme_leads(generated: ModuleType) -> None:
    text = generated.study("budget")
    assert "(../../experiments/budget/cpu/figures/stsb_budget_curves.svg)" in text
    assert "study.yaml (`experiments/budget/study.yaml`)" in text
    assert "(budget.md)" in generated.study("discriminator_loss")


def test_every_study_is_among_the_results_as_run_or_not_run() -> None:
    run, not_run = (ROOT / "docs/results/index.md").read_text().split("## What was not run")
    for folder in sorted(
        {path.parent for name in ("study.*", "README.md") for path in ROOT.glob(f"experiments/*/{name}")}
    ):
        was_run = any(folder.glob("**/results.md")) or any(folder.glob("cpu/report.md"))
        listed = f"[{folder.name}]({folder.name}.md)" in run if was_run else f"`experiments/{folder.name}`" in not_run
        assert listed, f"{folder.name}, which was{'' if was_run else ' not'} run"


def test_every_extra_is_named_with_what_it_is_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = re.findall(r"^\| `(\w+)` \| \S", (ROOT / "docs/how_to/install.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(extras)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/first_study.md"])
def test_figures_are_those_of_their_studies(page: str) -> None:
    """Scores stand in the table of scores; a difference is some pair's, perhaps the other way round."""
    results = (ROOT / "experiments/sample_arms/results.md").read_text()
    text = (ROOT / page).read_text()
    scores = re.findall(r"^\| `?(\w+)`?[^|]*\| \**(\d+\.\d ± \d+\.\d)", text, re.MULTILINE)
    assert [arm for arm, _ in scores] == ["none", "primary_only", "random", "feature_similarity", "full"]
    for arm, score in scores:
        assert re.search(rf"^\| {arm} .*\b{score}\b", results, re.MULTILINE), (arm, score)
    found = [(line, one) for line in text.splitlines() for one in re.findall(_DIFFERENCE, line)]
    assert found
    for line, one in found:
        name = (re.findall(r"experiments/(\w+)/README", line) or ["sample_arms"])[0]
        pages = [path.read_text() for path in sorted((ROOT / "experiments" / name).glob("*.md"))]
        known = set(map(_unsigned, re.findall(_DIFFERENCE, " ".join("\n".join(pages).split()))))
        assert _unsigned(one) in known, (name, one)


_DIFFERENCE = r"[+-]\d+\.\d\**\W+\[[+-]\d+\.\d, [+-]\d+\.\d\]"


def _unsigned(difference: str) -> tuple[str, ...]:
    """A difference and its interval's ends without signs, the ends in ascending order."""
    mean, *ends = re.findall(r"\d+\.\d", difference)
    return mean, *sorted(ends)
