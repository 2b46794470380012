"""Overrides as people type them, before Hydra reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from fastmtl.errors import UserError

_OVERRIDE = re.compile(r"((?:\+\+?|~)?[A-Za-z_][\w/@.:$-]*=)([^\\]*)", re.S)
_QUOTED = r"'[^']*'|\"[^\"]*\""

MERGEABLE = ("experiment", "debug")
"""Groups whose options change single keys, so that several of them make sense together."""


def quote_unicode(arguments: Iterable[str]) -> list[str]:
    """The arguments with quotes around every value that Hydra's grammar, which is ASCII alone, could not read.

    `primary=größe` becomes `primary='größe'`; elements of lists and of sweeps are quoted one by one. Values with
    backslashes are left to Hydra.
    """
    return [_quote_values(argument) for argument in arguments]


def _quote_values(argument: str) -> str:
    if argument.isascii() or not (found := _OVERRIDE.fullmatch(argument)):
        return argument
    key, value = found.groups()
    ends, keys = (":", r"(?!:)") if "{" in value else ("", "")  # Hydra takes no quotes around a dictionary's keys

    def quote(element: re.Match[str]) -> str:
        text = element[0].strip()
        return element[0] if text.isascii() or text[0] in "'\"" else element[0].replace(text, f"'{text}'")

    return key + re.sub(rf"{_QUOTED}|[^,\[\](){{}}'\"{ends}]++{keys}", quote, value)


def check_choices(overrides: Iterable[str], folder: Path) -> None:
    """A `UserError` for several options of one group of `folder`: Hydra would merge them into one that is neither."""
    for override in overrides:
        found = re.match(r"\+*([\w/]+)(?:@[\w.]+)?=\[.*,.*\]$", override)
        if found is not None and found[1] not in MERGEABLE and (folder / found[1]).is_dir():
            raise UserError(f"{override} names several options of {found[1]}, which takes one; name one of them alone")
