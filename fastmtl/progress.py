"""The one progress bar."""

from __future__ import annotations

import sys

from tqdm import tqdm

SECONDS_IN_A_LOG = 60
"""Between two lines where nobody watches: a log of many hours stays short."""


def progress(title: str, unit: str, total: int | None = None) -> tqdm:
    """A bar on standard error that vanishes when it is done; shown after two seconds, so that short work is silent.

    Without a title there is none: of a part of work that has a bar of its own.
    """
    often = 0.1 if sys.stderr.isatty() else SECONDS_IN_A_LOG
    return tqdm(
        desc=title, unit=unit, total=total, delay=2, mininterval=often, maxinterval=often, leave=False,
        disable=not title,
    )  # fmt: skip
