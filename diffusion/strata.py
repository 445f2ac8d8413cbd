"""Which indices of a sampling schedule are trained on. Whole numbers only; torch-free, so that a config is checked."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise


def _even_strata(lowest: int, end: int, draws: int) -> list[tuple[int, int]]:
    """`draws` neighbouring index ranges that cover [lowest, end); integer arithmetic, so no rounding of k * width."""
    edges = [lowest + (end - lowest) * k // draws for k in range(draws + 1)]
    return list(pairwise(edges))


_STRATA: dict[str, Callable[[int, int], list[tuple[int, int]]]] = {
    "skip": lambda end, draws: _even_strata(1, end, draws),
    "allow": lambda end, draws: _even_strata(0, end, draws),
    "always": lambda end, draws: [(0, 1), *(_even_strata(1, end, draws - 1) if draws > 1 else [])],
}


def discrete_strata(steps: int, draws: int, initial: str = "skip", until: float = 0.9) -> list[tuple[int, int]]:
    """Index ranges [lower, upper) of the schedule, one for each draw.

    Args:
        steps: network steps n of the schedule.
        draws: times T per sample.
        initial: "skip", "allow" or "always" the pure-noise time, index 0.
        until: only indices below int(n * until) are used.

    Raises:
        ValueError: unknown `initial`, or fewer indices than strata.
    """
    if initial not in _STRATA:
        raise ValueError(f"expected initial to be one of {sorted(_STRATA)}, found {initial!r}")
    end = int(steps * until + 1e-9)  # 0.29 * 100 is 28.999...: the product of two exact decimals must not lose one
    strata = _STRATA[initial](end, draws)
    if any(lower >= upper for lower, upper in strata):
        raise ValueError(
            f"{draws} strata of training times do not fit below index {end} of a schedule with {steps} steps "
            f"(until={until}, initial={initial!r}). Lower `draws`, or raise `until` or `rollout.num_inference_steps`."
        )
    return strata
