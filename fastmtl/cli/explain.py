"""`fastmtl help KEY`: what a key means, from the comment beside it and its class's docstring; read, never imported."""

from __future__ import annotations

import ast
import builtins
import difflib
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import cleandoc
from pathlib import Path
from typing import Any

import yaml

from fastmtl import options
from fastmtl.cli.compose import conf_dir
from fastmtl.cli.verbs import Arguments
from fastmtl.errors import UserError

_DEFAULT = re.compile(r"^  - (\w+)(?:@([\w.]+))?: (\w+)(?: # (.*))?$", re.MULTILINE)
_PRESETS = ("experiment", "debug")
"""Groups whose options set keys of others."""
_PACKAGE = Path(options.__file__).parent


@dataclass(frozen=True)
class Written:
    """A key where a file of conf/ has it: `comment` stands beside it; `target` is the class that it is an option of."""

    key: str
    value: Any
    comment: str
    target: str
    option: str


@dataclass(frozen=True)
class Reference:
    """Everything that can be set, as the files of a configuration folder say it."""

    conf: Path

    @cached_property
    def defaults(self) -> list[tuple[str, str, str, str]]:
        """(group, place, option, comment) of the lines of the list of defaults; no place: that of its name."""
        return _DEFAULT.findall((self.conf / "config.yaml").read_text())

    @cached_property
    def written(self) -> dict[str, list[Written]]:
        """Key -> all places that have it: what composes as the default first."""
        chosen = [(group, option, place or group) for group, place, option, _ in self.defaults]
        others = [(path.parent.name, path.stem, path.parent.name) for path in sorted(self.conf.glob("*/*.yaml"))]
        found = list(_read(self.conf / "config.yaml", "", ""))
        for group, option, place in [*chosen, *others]:
            if group not in _PRESETS:
                found += self._of_option(group, option, place)
        keys: dict[str, list[Written]] = {}
        for one in found:
            keys.setdefault(one.key, []).append(one)
        return keys

    def _of_option(self, group: str, option: str, place: str) -> Iterator[Written]:
        path = self.conf / group / f"{option}.yaml"
        yield from _read(path, f"{place}.", f"{group}={option}")
        for inherited in re.findall(r"^  - ([a-z]\w*)$", path.read_text(), re.MULTILINE):
            yield from self._of_option(group, inherited, place)

    def meaning(self, key: str) -> list[str]:
        """The comment that stands nearest, what the class's docstring says, what values fit, and where it is a key."""
        places = self.written.get(key, [])
        about = next((comment for group, place, _, comment in self.defaults if key == group and not place), "")
        comment = next((place.comment for place in places if place.comment), "")
        target = next((place.target for place in places if place.target), "")
        said, takes = _of_class(target, key.rpartition(".")[2]) if target else ("", "")
        same = said.lower().rstrip(".") == comment.lower()
        options = list(dict.fromkeys(place.option for place in places)) or [""]
        default = options[0] in ("", *(f"{group}={option}" for group, _, option, _ in self.defaults))
        lines = (about, comment, "" if same else said, takes, "" if default else f"with {', '.join(options)}")
        return [line for line in lines if line]

    def explain(self, key: str) -> str:
        """All there is to say about a key or a group; a `UserError` names the nearest keys where there is none."""
        choices = sorted((self.conf / key).glob("*.yaml"))
        if key not in self.written and not choices:
            ends = {name.rpartition(".")[2]: name for name in self.written}
            near = difflib.get_close_matches(key, [*self.written, *(group for group, *_ in self.defaults)], 3)
            near = near or [ends[end] for end in difflib.get_close_matches(key.rpartition(".")[2], ends, 2)]
            fix = f"did you mean {' or '.join(map(repr, near))}?" if near else "see fastmtl help"
            raise UserError(f"{key!r} is not a key of the configuration; {fix}")
        wrap = textwrap.TextWrapper(100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        options = _table([(f"{key}={path.stem}", _first_comment(path)) for path in choices])
        inside = self._lines([name for name in self.written if name.rpartition(".")[0] == key])
        parts = [[self.title(key), *map(wrap.fill, self.meaning(key))], options, inside]
        return "\n\n".join("\n".join(lines) for lines in parts if lines)

    def title(self, key: str) -> str:
        """KEY=DEFAULT as one would type it; a mapping is its keys, which are listed."""
        chosen = {group: option for group, place, option, _ in self.defaults if not place}
        value = chosen.get(key, self.written[key][0].value if key in self.written else {})
        if isinstance(value, dict):
            return key
        plain = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True).split("\n")[0]
        return f"{key}={value if isinstance(value, str) else plain}"

    def overview(self) -> str:
        """Plain keys and groups, a line each."""
        groups = [group for group, place, *_ in self.defaults if not place]
        plain = [name for name in self.written if "." not in name and name not in (*groups, "fit")]
        return "\n".join([*self._lines(plain), "", "Groups, of which one option is chosen:", *self._lines(groups)])

    def _lines(self, keys: Sequence[str]) -> list[str]:
        return _table([(self.title(name), next(iter(self.meaning(name)), "")) for name in keys])


def _read(path: Path, prefix: str, option: str) -> Iterator[Written]:
    text = path.read_text()
    lines = text.splitlines()

    def walk(node: Any, values: Any, prefix: str) -> Iterator[Written]:
        for key, value in node.value if isinstance(values, dict) else ():
            name, line = key.value, lines[key.start_mark.line]
            if name not in ("defaults", "hydra", "_target_", "_recursive_"):
                beside = re.search(r"\s# (.*)$", line) if not line[: key.start_mark.column].strip() else None
                comment = beside[1] if beside else ""
                yield Written(prefix + name, values[name], comment, values.get("_target_", ""), option)
                yield from walk(value, values[name], f"{prefix}{name}.")

    return walk(yaml.compose(text, yaml.CSafeLoader), yaml.load(text, yaml.CSafeLoader), prefix)


class _Names(dict[str, Any]):
    """Names of annotations; what is imported from elsewhere says nothing here."""

    def __missing__(self, name: str) -> Any:
        return Any


_NAMES = _Names(vars(builtins) | vars(typing) | vars(options) | {"Mapping": Mapping, "Sequence": Sequence})


def _of_class(target: str, name: str) -> tuple[str, str]:
    """What the docstring of a class or function says of an argument, and which values fit it."""
    *module, made = target.split(".")
    path = _PACKAGE.joinpath(*module[1:]).with_suffix(".py")
    if not target.startswith("fastmtl.") or not path.is_file():
        return "", ""
    node: Any = next(one for one in ast.parse(path.read_text()).body if getattr(one, "name", "") == made)
    doc = cleandoc(ast.get_docstring(node) or "").partition("Args:\n")[2]
    said = re.search(rf"^    {name}: (.*(?:\n {{8}}.*)*)", doc, re.MULTILINE)
    fields = node.args.args if isinstance(node, ast.FunctionDef) else node.body
    hints = {getattr(one, "arg", "") or ast.unparse(getattr(one, "target", one)): one for one in fields}
    hint = getattr(hints.get(name), "annotation", None)
    words = options.describe(eval(ast.unparse(hint), {}, _NAMES)) if hint else ""  # of our own source
    return " ".join(said[1].split()) if said else "", f"takes {words}" if words and "the type" not in words else ""


def _first_comment(path: Path) -> str:
    lines = (line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    return next(lines, "").removeprefix("# ")


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:{min(width, 40)}}  {about}".rstrip() for name, about in rows]


def main(argv: list[str]) -> None:
    """`fastmtl help`."""
    parser = Arguments("help", "fastmtl help proxy.fit.epochs", "Without a key: all groups and plain keys.")
    parser.add_argument("key", nargs="?", help="of the configuration, or a group such as selection")
    key = parser.parse_args(argv).key
    reference = Reference(Path(conf_dir()))
    print(reference.explain(key) if key else reference.overview())
