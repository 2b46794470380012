"""What many cells show: tables, paired comparisons and a recommendation, a section for each setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastmtl.reporting import tables
from fastmtl.reporting.beliefs import Bandit
from fastmtl.reporting.compare import comparisons, matched, recommendation
from fastmtl.reporting.frame import BASELINES, Result, frame, settings
from fastmtl.reporting.row_noise import row_noise
from fastmtl.reporting.table import Table, section

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Section:
    """Cells of one setting and what is said of them; `compared` has one row a pair of arms (see `comparisons`)."""

    name: str
    title: str
    cells: DataFrame
    compared: DataFrame
    tables: Sequence[Table]
    sentences: Sequence[str]


def sections(cells: DataFrame, references: Sequence[str] = BASELINES) -> list[Section]:
    """One section a setting, in the order of the frame."""
    return [_section(setting, group, references) for setting, group in settings(cells)]


def across(told: Sequence[Section]) -> list[Table]:
    """Tables over all primaries; none where there is but one."""
    if len(told) < 2:
        return []
    names = [f"{one.name} ({one.cells['metric'].iloc[0]})" for one in told]
    cells, compared = [one.cells for one in told], [one.compared for one in told]
    return [tables.overview(names, cells, compared), *tables.verdicts(names, cells)]


def comparison(results: Iterable[Result]) -> str:
    """All sections as Markdown that also reads well in a terminal."""
    return "\n\n".join(section(one.title, one.sentences, one.tables) for one in sections(frame(results)))


def cell_tables(result: Result, bandit: Bandit | None = None, mixing: dict[str, Any] | None = None) -> list[Table]:
    """A cell's stages; before them, with the `bandit.json` and `mixing.json` of its artifacts, how its tasks and its
    ratio came about."""
    return [
        *([tables.tasks(result, bandit)] if bandit else []),
        *([tables.trials(result, mixing)] if mixing else []),
        tables.stages(result),
    ]


def _section(setting: dict[str, str], cells: DataFrame, references: Sequence[str]) -> Section:
    by_rows = row_noise(cells)
    compared = comparisons(cells, references, by_rows)
    made = [
        tables.scores(cells, compared),
        *([tables.differences(tested)] if len(tested := compared[compared["n"] > 1]) else []),
        *([tables.matched(same)] if (same := matched(cells, by_rows))["n"].any() else []),
        tables.composition(cells),
        tables.costs(cells),
        *([chosen] if (chosen := tables.choices(cells)) else []),
    ]
    rows = int(cells["validation_rows"].iloc[0])
    title = (
        f"{setting['primary']}: {setting['metric']} on {rows} validation rows "
        f"({setting['encoder']}, protocol {setting['protocol']}, pool {setting['pool'][:8]})"
    )
    advice = recommendation(cells, compared, by_rows)
    return Section(setting["primary"], title, cells, compared, made, [advice, *tables.audits(cells)])
