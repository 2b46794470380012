"""The page of a study: one HTML file that asks for no other, for a screen, a telephone and paper.

Import this module where a page is written, not before: it loads matplotlib and Jinja.
"""

from __future__ import annotations

import hashlib
import io
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rcParams

from fastmtl.reporting.plots import DRAWN, Picture
from fastmtl.reporting.table import Part, Table


def write_page(
    path: Path, title: str, parts: Sequence[Part], commands: Sequence[str] = (),
    versions: Mapping[str, str] = MappingProxyType({}),
) -> Path:  # fmt: skip
    """Equal parts, equal bytes; all text is escaped.

    `commands` repeat what is shown, `versions` are of the packages that computed it.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    jinja.filters["code"] = _code
    script, source = "", ""
    if any(table.searchable for part in parts for table in part.tables):
        script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
        digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
        source = Markup(f"; script-src 'sha256-{digest}'")  # this script and no other
    page = jinja.get_template("page.html.j2").render(
        title=title, parts=parts, commands=commands, versions=versions, svg=_svg, numbers=_numbers,
        script=Markup(script), script_source=source,
    )  # fmt: skip
    path.write_text(page + "\n", encoding="utf-8")
    return path


def _code(text: str) -> Markup:
    """Escaped, with Markdown's `code` as an element."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _numbers(table: Table) -> list[bool]:
    """Whether a column holds numbers alone, which are set to the right."""
    columns = range(len(table.headers))
    return [all(re.match(r"[+\-−<]?[\d.]|$", str(row[column])) for row in table.rows) for column in columns]


@DRAWN
def _svg(picture: Picture, part: int, number: int) -> Markup:
    """The figure as an element of the page, named and described for who does not see it."""
    label = f"figure-{part}-{number}"
    rcParams["svg.hashsalt"] = label  # clip paths and markers are found by id, and the page has but one space of ids
    out = io.StringIO()
    picture.figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = out.getvalue()
    width, height = re.findall(r'(?:width|height)="([\d.]+pt)"', drawn)[:2]
    box = re.search(r'viewBox="[^"]+"', drawn)
    assert box
    # What is left out: the head and namespaces, which HTML does not need; a style sheet, which would hold for the whole
    # page and so stands in the template; the names of groups, which all figures share.
    body = drawn[drawn.index(">", box.end()) + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    return Markup(
        f'<svg role="img" aria-labelledby="{label}-title" aria-describedby="{label}-numbers" {box.group()} '
        f'width="{width}" height="{height}">\n<title id="{label}-title">{escape(picture.title)}</title>\n'
        f'<desc id="{label}-numbers">{escape(picture.alt)}</desc>{body}'
    )
