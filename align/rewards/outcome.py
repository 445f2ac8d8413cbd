"""What a reward may answer beside a number: no score, and why; or that the run must stop. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from align.errors import AlignError


@dataclass(frozen=True)
class Unscored:
    """Returned in place of a number: this sample has no score, for this reason.

    `None` and NaN say the same without a reason. Reasons are counted, so they should not hold what differs from sample
    to sample.

    Attributes:
        reason: follows the reward's name in the log: "could not be reached".
    """

    reason: str


class ScorerStopped(AlignError):  # noqa: N818 - named for what happens
    """Raised by a reward to end the run. Any other exception leaves its samples unscored."""
