"""Scores to advantages: one paper per file. Any integer ids, any sizes; the shared rules are in `rules.py`, once.

Examples:
    >>> import torch
    >>> inputs = AdvantageInputs(rewards=torch.tensor([1.0, 2.0, 6.0]), group_ids=torch.tensor([7, 7, 7]))
    >>> estimate("rloo", inputs).advantages
    tensor([-3.0000, -1.5000,  4.5000])
"""

from align.advantages.inputs import AdvantageInputs, AdvantageResult
from align.advantages.registry import available
from align.advantages.rules import estimate, estimate_with

__all__ = ["AdvantageInputs", "AdvantageResult", "available", "estimate", "estimate_with"]
