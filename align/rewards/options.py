"""Options of built-in rewards, checked when the reward is made: what was expected, what was found, what to write."""

from __future__ import annotations

import os
from collections.abc import Sequence

from align.errors import AlignError, did_you_mean


def one_of(option: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        AlignError: names the nearest one.
    """
    if value not in choices:
        raise AlignError(
            f"option `{option}` expects one of {', '.join(choices)}, found {value!r}."
            f"{did_you_mean(str(value), choices)}",
            f"Write for example `{option}: {choices[0]}`.",
        )


def whole(option: str, value: object, least: int = 1) -> None:
    """Refuse anything but a whole number from `least`.

    Raises:
        AlignError: it is another.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise AlignError(
            f"option `{option}` expects a whole number from {least}, found {value!r}.", "Correct it under `options`."
        )


def positive(option: str, value: object, zero: bool = False) -> None:
    """Refuse anything but a positive number; `zero` allows 0, too.

    Raises:
        AlignError: it is another.
    """
    ok = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (0 < value < float("inf") or (zero and value == 0))
    )
    if not ok:
        what = "a number from 0" if zero else "a positive number"
        raise AlignError(f"option `{option}` expects {what}, found {value!r}.", "Correct it under `options`.")


def secret(option: str, variable: str | None) -> str | None:
    """What an environment variable holds; None for None.

    Raises:
        AlignError: it is not set, or cannot stand in an HTTP header. The message does not hold it.
    """
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value or not value.isprintable() or not value.isascii():
        found = "it is empty or not set" if not value else "it holds other than printable ASCII characters"
        raise AlignError(
            f"option `{option}` names the environment variable {variable}, but {found}.",
            f"`export {variable}=...` before the run.",
        )
    return value
