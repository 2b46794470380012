"""The commands that documents show, as a shell would pass them on."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("fastmtl", "make", "python")
_COMMAND = re.compile(rf"(?:\w+=\S* )*(?:{'|'.join(PROGRAMS)})(?: .*|$)")
_FENCE = re.compile(r"^```([\w{}-]*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Shown:
    """A line of shell, and the document that shows it."""

    document: str
    line: str

    def __str__(self) -> str:
        return f"{self.document}: {self.line}"

    def arguments(self, folder: Path) -> list[str]:
        """Program and arguments as the shell makes them of quotes, comments and variables; nothing is run."""
        stubs, noted = folder / "stubs", folder / "noted"
        stubs.mkdir(exist_ok=True)
        for name in PROGRAMS:
            (stubs / name).write_text(f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\" >'{noted}'\n")
            (stubs / name).chmod(0o755)
        line = re.sub(r"(?<=\s)\.\.\.(?=\s|$)", "", self.line)  # and so on
        environment = {**os.environ, "PATH": f"{stubs}:/usr/bin:/bin"}
        ran = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return noted.read_text().split("\0")[:-1]


def files(document: str) -> dict[str, str]:
    """Path -> text of the files that a page shows: blocks that begin with a comment which names one."""
    blocks = _FENCE.findall((ROOT / document).read_text()) if document.endswith(".md") else []
    named = ((re.match(r"# ([\w./]+\.(?:py|yaml))\b", block), block) for _, block in blocks)
    return {found[1]: block for found, block in named if found}


def pages() -> list[Path]:
    """What people read first: README, CONTRIBUTING and the documentation."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(ROOT.glob("docs/[!_]*/**/*.md")),
        *ROOT.glob("docs/*.md"),
    ]


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", text)


def shown() -> list[Shown]:
    """Of README, docs, help texts, studies' pages and scripts, notebooks, configuration, each line once a document."""
    found = []
    for path in (*pages(), *ROOT.glob("experiments/**/README.md")):
        found += [(path, line) for line in _of_markdown(path.read_text())]
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
        found += [(path, line) for cell in cells for line in _of_markdown("".join(cell["source"]))]
    for path in ROOT.glob("experiments/**/*.sh"):
        found += [(path, line) for line in _of_shell(path.read_text())]
    for path in ROOT.glob("fastmtl/cli/*.py"):  # examples
        found += [(path, line) for line in re.findall(r'"(fastmtl \w+ [^"]*)"', path.read_text())]
    for path in (*ROOT.glob("conf/**/*.yaml"), ROOT / "fastmtl/cli/verbs.py"):
        lines = [re.split(r"(?<=\S)\s{3,}", line.strip("# "))[0] for line in path.read_text().splitlines()]
        found += [(path, line) for line in lines if _COMMAND.fullmatch(line) and not re.search(r"\w\.$", line)]
    return [Shown(str(path.relative_to(ROOT)), line) for path, line in dict.fromkeys(found)]


def _of_markdown(text: str) -> Iterator[str]:
    for language, block in _FENCE.findall(text):
        if language in ("", "sh", "bash", "console"):
            yield from _of_shell(block)
        yield from re.findall(r"# .*\brun: (.*)$", block, re.MULTILINE)
    rest = prose(text)
    spans = [" ".join(span.split()) for span in _SPAN.findall(rest)]
    yield from (span for span in spans if " " in span and _COMMAND.fullmatch(span))
    yield from _of_tables(rest)


def _of_shell(block: str) -> Iterator[str]:
    lines = (line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
    yield from (line for line in lines if _COMMAND.fullmatch(line))


def _of_tables(text: str) -> Iterator[str]:
    """Arguments in a column `command` belong to the command that its head names, to plain `fastmtl` if none."""
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines(True))
        for column, title in enumerate(head):
            if title.startswith("command"):
                program = next(iter(_SPAN.findall(title)), "fastmtl")
                spans = (span for row in rows for span in _SPAN.findall(row[column]))
                yield from (f"{program} {span}" for span in spans if re.match(r"[\w./@+~]+=", span))
