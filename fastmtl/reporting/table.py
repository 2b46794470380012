"""Parts of a report: `Table`, one source for Markdown, LaTeX and CSV, and how its numbers are written."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

if TYPE_CHECKING:  # who prints a table does not wait for matplotlib
    from fastmtl.reporting.plots import Picture

_LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "–": "--",
})  # fmt: skip


BRIEF = 10
"""Rows of a searchable table that Markdown and LaTeX show."""


@dataclass(frozen=True)
class Table:
    """Cells as text, `headers` (C,), `rows` (R, C); `bold` holds (row, column) of what is significant, nothing else.

    A `searchable` one has many rows: on the page it can be searched and sorted, elsewhere its first `BRIEF` rows stand.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    note: str = ""
    searchable: bool = False

    @property
    def _shown(self) -> Sequence[Sequence[str]]:
        return self.rows[:BRIEF] if self.searchable else self.rows

    def markdown(self) -> str:
        """With title and note; reads well in a terminal too."""
        rows = [
            [f"**{cell}**" if (r, c) in self.bold else str(cell).replace("|", r"\|") for c, cell in enumerate(row)]
            for r, row in enumerate(self._shown)
        ]
        body = tabulate(rows, self.headers, tablefmt="github", disable_numparse=True)
        return "\n\n".join(part for part in (f"### {self.title}", body, self.note) if part)

    def latex(self) -> str:
        r"""A `table` float with `\toprule` and its kin, for `\usepackage{booktabs}`."""
        head, *rows = (
            " & ".join(rf"\textbf{{{_tex(cell)}}}" if (r, c) in self.bold else _tex(cell) for c, cell in enumerate(row))
            + r" \\"
            for r, row in enumerate([self.headers, *self._shown], -1)
        )
        return "\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{_tex(' '.join((self.title + '. ' + self.note).split()))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.headers) - 1)}}}", r"\toprule", head, r"\midrule", *rows,
            r"\bottomrule", r"\end{tabular}", r"\end{table}",
        ])  # fmt: skip

    def csv(self) -> str:
        """Header line and rows; no title, no note, no bold."""
        out = io.StringIO()
        safe = [[no_formula(str(cell)) for cell in row] for row in self.rows]
        csv.writer(out, lineterminator="\n").writerows([self.headers, *safe])
        return out.getvalue()


@dataclass(frozen=True)
class Part:
    """A headed part of a report: the answer, the first picture, other sentences, tables, other pictures."""

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()

    def markdown(self, figures: str = "") -> str:
        """Reads well in a terminal too; `figures`: how the names of files of pictures begin, none are shown without."""
        links = [f"![{one.title}]({figures}{one.name}.svg)" for one in self.pictures if figures]
        answer, others, tables = self.sentences[:1], self.sentences[1:], (table.markdown() for table in self.tables)
        return "\n\n".join([f"## {self.title}", *answer, *links[:1], *others, *tables, *links[1:]])


def no_formula(text: str) -> str:
    """Text that a spreadsheet would take for a formula, with an apostrophe before it; numbers stay as they are."""
    return f"'{text}" if re.match(r"[=@\t\r]|[+\-](?![\d.∞])", text) and text != "-" else text


def _tex(text: str) -> str:
    return str(text).translate(_LATEX)


def shown(value: float | None, form: str = ".1f", scale: float = 1.0) -> str:
    """A number times the scale; empty where there is none."""
    return "" if value is None or math.isnan(value) else format(scale * value, form)


def percent(value: float | None, form: str = ".1f") -> str:
    """A number x100."""
    return shown(value, form, 100)


def mean_sd(values: Any) -> str:
    """Mean and, of several values of a column, standard deviation."""
    return shown(values.mean()) + (f" ± {values.std():.1f}" if values.count() > 1 else "")
