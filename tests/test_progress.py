"""The one progress bar."""

import io
import sys

import pytest

from fastmtl.progress import SECONDS_IN_A_LOG, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "seconds"), [(Terminal(), 0.1), (io.StringIO(), SECONDS_IN_A_LOG)])
def test_a_log_has_a_line_a_minute_and_a_terminal_ten_a_second(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, seconds: float
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("read", "row", 10) as bar:
        assert bar.mininterval == seconds
        bar.update(10)
    assert stream.getvalue().strip() == ""  # short work is silent
