"""The page of the losses: it lists them all, and its example runs."""

import re
from pathlib import Path

from preference.losses import available

PAGE = Path(__file__).parents[3] / "docs" / "preference_losses.md"


def test_every_loss_has_a_row():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(available()) <= rows


def test_the_example_runs():
    """The first loss of the page is the hand-worked one of `test_dpo.py`: log(1 + e^-1.5) = 0.2014133."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict = {}
    exec(code.group(1), names)
    assert abs(float(names["losses"]) - 0.2014133) < 1e-6
