"""One table, three texts."""

import csv
import io

from fastmtl.reporting.table import Table

TABLE = Table(
    "Scores & more",
    ["arm", "a_b", "x"],
    [["none", "62.1 ± 1.0", ""], ["a|b", "100 %", "1"]],
    frozenset({(1, 1)}),
    "50 %",
)


def test_markdown_has_title_note_and_bold_and_escapes_bars() -> None:
    title, body, note = TABLE.markdown().split("\n\n")
    assert (title, note) == ("### Scores & more", "50 %")
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body.splitlines()]
    assert cells[0] == ["arm", "a_b", "x"]
    assert cells[2:] == [["none", "62.1 ± 1.0", ""], [r"a\|b", "**100 %**", "1"]]


def test_latex_is_a_booktabs_table_with_everything_escaped() -> None:
    lines = TABLE.latex().splitlines()
    assert r"\caption{Scores \& more. 50 \%}" in lines
    assert r"\begin{tabular}{lrr}" in lines
    assert lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")] == [
        r"\toprule", r"arm & a\_b & x \\", r"\midrule", r"none & 62.1 $\pm$ 1.0 &  \\", r"a|b & \textbf{100 \%} & 1 \\",
    ]  # fmt: skip


def test_csv_reads_back() -> None:
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [list(TABLE.headers), *map(list, TABLE.rows)]
