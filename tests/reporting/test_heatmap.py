"""The heat map shows every gain, and bold what seeds bear out."""

from __future__ import annotations

from pandas import DataFrame, MultiIndex

from fastmtl.reporting.relations import heat_map


def test_cells_are_gains_and_bold_ones_leave_zero_out() -> None:
    index = MultiIndex.from_tuples([("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")],
                                   names=["main", "aux"])  # fmt: skip
    nan = float("nan")
    gains = DataFrame({"gain": [5.0, -3.0, 0.2, 1.0, 0.0, -1.0], "low": [1.0, -4.0, -1.0, nan, nan, nan],
                       "high": [9.0, -2.0, 1.4, nan, nan, nan]}, index)  # fmt: skip
    axes = heat_map(gains).axes[0]
    shown = {text.get_text(): text.get_fontweight() for text in axes.texts}
    assert shown == {"+5.0": "bold", "-3.0": "bold", "+0.2": "normal", "+1.0": "normal", "+0.0": "normal",
                     "-1.0": "normal"}  # fmt: skip
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.images[0].get_array()[0, 1] == 5  # main a, auxiliary b
