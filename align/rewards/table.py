"""The built-in rewards as a table, from their docstrings.

python -m align.rewards.table
"""

from __future__ import annotations

import inspect

from align.rewards.find import BUILT_IN, find_function
from align.rewards.load import SAMPLES


def first_sentence(name: str) -> str:
    """What a built-in reward measures: the first line of its docstring."""
    text = inspect.getdoc(find_function(name)) or ""
    return text.splitlines()[0]


def options(name: str) -> list[str]:
    """Names of a built-in reward's options."""
    found = find_function(name)
    parameters = inspect.signature(found).parameters
    return [option for option in parameters if inspect.isclass(found) or option not in (*SAMPLES, "columns")]


def markdown() -> str:
    """A row a reward: name, what it measures, options."""
    rows = [
        f"| `{name}` | {first_sentence(name)} | {', '.join(f'`{option}`' for option in options(name)) or '–'} |"
        for name in BUILT_IN
    ]
    return "\n".join(["| name | what it measures | options |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
