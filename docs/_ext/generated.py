"""The parts of the documentation that are read from the source: configuration, commands, Python interface, studies.

A page says where such a part belongs by a line `<!-- generated: NAME -->`, which is replaced when Sphinx reads it.
"""

from __future__ import annotations

import argparse
import ast
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any

import fastmtl
from fastmtl.cli.compose import conf_dir
from fastmtl.cli.explain import Reference
from fastmtl.cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
FITS = ("proxy.fit", "multitask.fit", "finetune.fit", "bandit.fit", "relations.fit")
PUBLIC = {
    "Experiments": ["cli.compose.compose", "pipelines.experiment.Experiment", "reporting.result.record"],
    "Trained models": ["training.trained.load", "training.trained.Model", "training.finetuned.load_finetuned"],
    "Scorers and selectors": [
        "scoring.base.Scorer", "scoring.base.ScoringInputs", "selection.base.Selector", "selection.base.Budgeted",
        "selection.candidates.Candidates",
    ],
    "Tasks and rows": ["tasks.spec.TaskSpec", "tasks.kinds.TaskKind", "data.rows.RowSet"],
    "Stages": ["stages.base.Stage", "stages.base.Context"],
    "Options and errors": ["options.options", "options.checked", "errors.UserError"],
}  # fmt: skip
"""Heading -> what a user calls or subclasses, below `fastmtl`."""

_MARK = re.compile(r"^<!-- generated: (\w+)(?: (\w+))? -->$", re.MULTILINE)
_SECTION = re.compile(r"^(Args|Returns|Raises|Source|Yields|Example):\n((?:    .*\n?|\n)+)", re.MULTILINE)


def plain(text: str) -> str:
    """Text as Markdown that says just that; what stands between backticks is code already."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    return "".join(part if index % 2 else re.sub(r"([\\*_<>\[\]{}|#~^$])", r"\\\1", part)
                   for index, part in enumerate(parts))  # fmt: skip


def sentence(text: str) -> str:
    """With a full stop, and a capital letter unless it begins with a value or a name."""
    if re.match(r"[a-z]+ [a-z]", text) and text.split()[0] not in ("fastmtl", "null", "true", "false"):
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".:!?" else f"{text}."


# --- configuration ---------------------------------------------------------------------------------------------------


def configuration() -> str:
    """Every group with its options, and every key with its default and meaning."""
    reference = Reference(Path(conf_dir()))
    groups = [group for group, place, *_ in reference.defaults if not place]
    leaves = [key for key, places in reference.written.items() if not isinstance(places[0].value, dict)]
    sections = [key for key in reference.written if "." not in key and key not in (*groups, "fit")]
    lines = ["## Plain keys", "", *_keys(reference, [key for key in sections if key in leaves])]
    for section in (key for key in sections if key not in leaves):
        own = [key for key in leaves if key.startswith(f"{section}.") and not key.startswith(FITS)]
        if own:
            lines += [f"## `{section}`", "", plain(sentence(" ".join(reference.meaning(section)))), ""]
            lines += _keys(reference, own)
    lines += [*_fits(reference, leaves), "## Groups", ""]
    for group in groups:
        lines += [f"### `{group}`", "", plain(sentence(" ".join(reference.meaning(group)[:1]))), ""]
        lines += [f"Default: `{reference.title(group)}`.", "", "| option | meaning |", "|---|---|"]
        for path in sorted((reference.conf / group).glob("*.yaml")):
            about = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
            lines.append(f"| `{group}={path.stem}` | {plain(about.removeprefix('# '))} |")
        lines += ["", *_keys(reference, [key for key in leaves if key.startswith(f"{group}.")])]
    return "\n".join(lines)


def _keys(reference: Reference, keys: list[str]) -> Iterator[str]:
    for key in keys:
        meaning = [plain(sentence(line)) for line in reference.meaning(key)]
        yield f"`{reference.title(key)}`\n: {' '.join(meaning) or 'See its option.'}\n"


def _fits(reference: Reference, leaves: list[str]) -> Iterator[str]:
    yield "## Fits: `proxy.fit`, `multitask.fit`, `finetune.fit`, `bandit.fit`, `relations.fit`\n"
    yield "Each training stage has its own copy of these keys: `finetune.fit.epochs=3` changes that stage alone.\n"
    for key in (key for key in leaves if key.startswith("finetune.fit.")):
        name = key.rpartition(".")[2]
        titles = dict.fromkeys(reference.title(f"{fit}.{name}") for fit in FITS if f"{fit}.{name}" in reference.written)
        values = {title.partition("=")[2] for title in titles}
        shown = f"`*.fit.{name}={values.pop()}`" if len(values) == 1 else ", ".join(f"`{title}`" for title in titles)
        meaning = [plain(sentence(line)) for line in reference.meaning(key)]
        yield f"{shown}\n: {' '.join(meaning)}\n"


# --- commands --------------------------------------------------------------------------------------------------------


class _Read(BaseException):
    """Ends a verb where it would read its arguments; holds its parser."""


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser that a verb makes for its arguments."""
    kept = {name: getattr(argparse.ArgumentParser, name) for name in ("parse_args", "parse_intermixed_args")}

    def stop(parser: argparse.ArgumentParser, *_: Any) -> None:
        raise _Read(parser)

    try:
        for name in kept:
            setattr(argparse.ArgumentParser, name, stop)
        import_module(f"fastmtl.cli.{VERBS[verb][0]}").main([])
    except _Read as read:
        return read.args[0]
    finally:
        for name, method in kept.items():
            setattr(argparse.ArgumentParser, name, method)
    raise AssertionError(f"fastmtl {verb} reads no arguments")


def commands() -> str:
    """Every verb with its arguments, as its `--help` has them."""
    lines: list[str] = []
    for verb, (_, about) in VERBS.items():
        parser = parser_of(verb)
        formatter = parser._get_formatter()
        described = " ".join((parser.description or f"{about}.").split())
        lines += [f"## `fastmtl {verb}`", "", plain(described), ""]
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
        lines += ["```", *_wrapped(usage), "```", ""]
        lines += (_argument(action, formatter) for action in parser._actions if action.dest != "help")
        if parser.epilog:
            lines += ["```", parser.epilog.strip(), "```", ""]
    return "\n".join(lines)


def _argument(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    """One argument or option, what it takes, and what it is for."""
    takes = str(action.metavar or action.dest.upper())
    title = takes if action.metavar or action.option_strings else action.dest
    if action.option_strings:
        title = ", ".join(action.option_strings) + (f" {takes}" if action.nargs != 0 else "")
    words = sentence(formatter._expand_help(action)) if action.help else ""
    if action.choices is not None:
        words = f"{words} One of {', '.join(map(str, action.choices))}.".strip()
    return f"`{title}`\n: {plain(words)}\n"


def _wrapped(usage: str) -> list[str]:
    return textwrap.wrap(usage, 88, subsequent_indent="    ", break_on_hyphens=False)


# --- the Python interface --------------------------------------------------------------------------------------------


def interface() -> str:
    """What a user calls or subclasses, with its docstring; read from the source, nothing is imported."""
    lines: list[str] = []
    for heading, paths in PUBLIC.items():
        lines += [f"## {heading}", ""]
        for path in paths:
            name = path.rpartition(".")[2]
            lines += _object(f"fastmtl.{name if name in fastmtl.__all__ else path}", _node(path))
    return "\n".join(lines)


def modules() -> str:
    """Every module of the package and its first sentence."""
    lines = ["| module | what is in it |", "|---|---|"]
    for path in sorted((ROOT / "fastmtl").rglob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text()))
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if doc and "conf" not in path.parts:
            lines.append(f"| `{name}` | {plain(_first(doc))} |")
    return "\n".join(lines)


def _first(doc: str) -> str:
    return " ".join(cleandoc(doc).split("\n\n")[0].split())


def _node(path: str) -> Any:
    """The class or function of a dotted path below `fastmtl`."""
    module, _, name = path.rpartition(".")
    base = ROOT / "fastmtl" / Path(*module.split("."))
    file = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
    return next(node for node in ast.parse(file.read_text()).body if getattr(node, "name", "") == name)


def _object(name: str, node: Any) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        yield f":::::{{py:class}} {name}\n{_docstring(node)}\n"
        for method in node.body:
            public = isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
            if public and ast.get_docstring(method):
                yield from _function(method.name, method, "property" if _is_property(method) else "method")
        yield ":::::\n"
    else:
        yield from _function(name, node, "function")


def _is_property(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(one).endswith("property") for one in node.decorator_list)


def _function(name: str, node: Any, kind: str) -> Iterator[str]:
    arguments = ast.unparse(node.args)
    arguments = re.sub(r"^self(?:, )?|^cls(?:, )?", "", arguments)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    signature = f"{name}({arguments}){returns}" if kind != "property" else name
    yield f"::::{{py:{kind}}} {signature}\n{_docstring(node)}\n::::\n"


def _docstring(node: Any) -> str:
    """A docstring in Google's style as Markdown."""
    doc = cleandoc(ast.get_docstring(node) or "") + "\n"

    def section(match: re.Match[str]) -> str:
        body = cleandoc(f"    {match[2].strip()}" if match[1] == "Example" else match[2])
        if match[1] in ("Args", "Raises"):
            items = re.split(r"\n(?=\S)", body)
            pairs = [item.partition(":") for item in items]
            return f"**{match[1]}**\n\n" + "\n".join(
                f"- `{key}`: {plain(' '.join(text.split()))}" for key, _, text in pairs) + "\n"  # fmt: skip
        return f"**{match[1]}** {plain(' '.join(body.split()))}\n"

    sections = [section(match) for match in _SECTION.finditer(doc)]
    return "\n" + "\n\n".join([plain(_SECTION.sub("", doc).strip()), *sections])


# --- studies ---------------------------------------------------------------------------------------------------------


def study(name: str) -> str:
    """The page of a study in experiments/, its links made to lead from docs/results/ to where they led."""
    text = (ROOT / "experiments" / name / "README.md").read_text()

    def lead(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in target:
            return match[0]
        if mark:
            return f"![{words}](../../experiments/{name}/{path})"
        if (other := re.fullmatch(r"\.\./(\w+)/README\.md", path)) is not None:
            return f"[{words}]({other[1]}.md{'#' * bool(anchor)}{anchor})"
        where = (ROOT / "experiments" / name / path).resolve().relative_to(ROOT)
        return f"{words} (`{where}`)"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", lead, text)


def fill(text: str) -> str:
    """A page with its generated parts."""
    made = {"configuration": configuration, "commands": commands, "interface": interface, "modules": modules}

    def part(match: re.Match[str]) -> str:
        return study(match[2]) if match[1] == "study" else made[match[1]]()

    return _MARK.sub(part, text)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""

    def read(_: Any, __: str, source: list[str]) -> None:
        source[0] = fill(source[0])

    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
