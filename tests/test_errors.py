"""What a broken file says must not be obeyed by the terminal that it is shown on."""

from __future__ import annotations

import pickle

import pytest

from fastmtl.errors import UserError


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("label '\x1b[31mred' is unknown", r"label '\x1b[31mred' is unknown"),
        ("two\nlines\tand\ra bell\a", r"two\nlines\tand\ra bell\x07"),
        ("turned \u202e round, \x9b0m", r"turned \u202e round, \x9b0m"),
        ("no text: \udcff", r"no text: \udcff"),
        ("größe 猫 is fine; so is C:\\new", "größe 猫 is fine; so is C:\\new"),
    ],
)
def test_control_characters_of_a_message_are_escaped(message: str, shown: str) -> None:
    error = UserError(message)
    assert str(error) == shown
    assert str(pickle.loads(pickle.dumps(error))) == shown  # it crosses processes, and is escaped once
