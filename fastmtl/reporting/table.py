"""`Table`: one source for Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

_LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "–": "--",
})  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Cells as text, `headers` (C,), `rows` (R, C); `bold` holds (row, column) of what is significant, nothing else."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    note: str = ""

    def markdown(self) -> str:
        """With title and note; reads well in a terminal too."""
        rows = [
            [f"**{cell}**" if (r, c) in self.bold else str(cell).replace("|", r"\|") for c, cell in enumerate(row)]
            for r, row in enumerate(self.rows)
        ]
        body = tabulate(rows, self.headers, tablefmt="github", disable_numparse=True)
        return "\n\n".join(part for part in (f"### {self.title}", body, self.note) if part)

    def latex(self) -> str:
        r"""A `table` float with `\toprule` and its kin, for `\usepackage{booktabs}`."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join(cells) + r" \\"

        rows = [
            [rf"\textbf{{{_tex(cell)}}}" if (r, c) in self.bold else _tex(cell) for c, cell in enumerate(row)]
            for r, row in enumerate(self.rows)
        ]
        return "\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{_tex(' '.join((self.title + '. ' + self.note).split()))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.headers) - 1)}}}", r"\toprule",
            line([_tex(header) for header in self.headers]), r"\midrule", *map(line, rows), r"\bottomrule",
            r"\end{tabular}", r"\end{table}",
        ])  # fmt: skip

    def csv(self) -> str:
        """Header line and rows; no title, no note, no bold."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.headers, *self.rows])
        return out.getvalue()


def section(title: str, sentences: Sequence[str], tables: Sequence[Table]) -> str:
    """A headed part of a report as Markdown."""
    return "\n\n".join([f"## {title}", *sentences, *(table.markdown() for table in tables)])


def _tex(text: str) -> str:
    return str(text).translate(_LATEX)
