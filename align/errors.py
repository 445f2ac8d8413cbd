"""Mistakes that the user can repair. They are shown without a traceback; everything else keeps its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AlignError(Exception):
    """Something the user gave is wrong: what was expected, what was found, and the way out.

    Args:
        message: expected and found, with the value, the file and the line where there is one.
        way_out: what to do. It is printed under the message.
    """

    exit_code = 2

    def __init__(self, message: str, way_out: str = "") -> None:
        super().__init__(message, way_out)
        self.message = message
        self.way_out = way_out

    def __str__(self) -> str:
        return f"{self.message}\n{self.way_out}" if self.way_out else self.message


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Question for the known word that resembles this one most, with a space before it; nothing if none does."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean `{close[0]}`?" if close else ""
