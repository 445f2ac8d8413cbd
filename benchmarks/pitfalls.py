"""The figures of docs/advantages_pitfalls.md, each by one command, as the lines that stand in the page.

    python benchmarks/pitfalls.py equal         equal rewards in float32: the mean's residue and what eps makes of it
    python benchmarks/pitfalls.py deviation     n - 1 or n
    python benchmarks/pitfalls.py scope         the group's standard deviation or everybody's
    python benchmarks/pitfalls.py singletons    what a group of one gets
    python benchmarks/pitfalls.py ids           group ids in float32
    python benchmarks/pitfalls.py clip          one success among n

Left of "here" stands what public trainers compute, written out in float32; "here" is `align.advantages.estimate`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from align.advantages import AdvantageInputs, estimate

EQUAL = ((15, 0.98), (15, 98.3), (24, 0.7), (15, 1.0))
"""How many equal rewards, and which."""
EPS = (1e-8, 1e-6, 1e-4)
SIZES = (2, 4, 8, 16, 24)
FLAT, WIDE = (0.50, 0.51, 0.49, 0.50), (0.0, 1.0, 0.0, 1.0)
"""Rewards of two prompts: one that the model hardly varies on, one right or wrong."""


def advantages(kind: str, *groups: tuple[float, ...], **options: object) -> Tensor:
    """What `estimate` makes of these groups of rewards, in their order."""
    sizes = torch.tensor([len(group) for group in groups])
    rewards = torch.tensor([reward for group in groups for reward in group])
    ids = torch.arange(len(groups)).repeat_interleave(sizes)
    return estimate(kind, AdvantageInputs(rewards=rewards, group_ids=ids), **options).advantages


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def shown(value: float, digits: int = 2) -> str:
    """Significant digits, without a sign on zero."""
    return f"{value:.{digits}g}" if value else "0"


def listed(values: Tensor) -> str:
    """Advantages with two decimals, zeros and whole numbers short."""
    return ", ".join(f"{round(value, 2):g}" if round(value, 2) else "0" for value in values.tolist())


def equal() -> Iterator[str]:
    """(r - mean) / (std + eps) of equal rewards, in float32, and here."""
    for count, reward in EQUAL:
        rewards = torch.full((count,), reward)
        residue = (rewards - rewards.mean()).abs().max()
        naive = [shown(float(residue / (rewards.std() + eps))) for eps in EPS]
        here = shown(float(advantages("grpo", (reward,) * count).abs().max()))
        yield row(f"{count} × {reward:g}" if reward != 1 else f"{count} × 1.0", f"{float(residue):.1e}", *naive, here)


def deviation() -> Iterator[str]:
    """sqrt(n / (n - 1)), and one success in four by both forms."""
    yield row("group size", *SIZES)
    yield row("factor", *(f"{(size / (size - 1)) ** 0.5:.3f}" for size in SIZES))
    one = (1.0, 0.0, 0.0, 0.0)
    for name, unbiased in (("unbiased", True), ("population", False)):
        yield f"{name}: {listed(advantages('grpo', one, unbiased=unbiased, eps=0.0))}"


def scope() -> Iterator[str]:
    """Two prompts by the group's and by everybody's population standard deviation."""
    for name, kind, options in (
        ("the group's (`grpo`)", "grpo", {"unbiased": False}),
        ("everybody's (`flow_grpo`)", "flow_grpo", {}),
    ):
        found = advantages(kind, FLAT, WIDE, **options)
        yield row(name, listed(found[:4]), listed(found[4:]))


def singletons() -> Iterator[str]:
    """A group of one with reward 0.7, beside a group of two."""
    for kind, options in (("grpo", {}), ("grpo", {"singleton": "raw"}), ("ngrpo", {}), ("psr_nsr", {})):
        settings = ", ".join(f"{name}: {value}" for name, value in options.items())
        value = float(advantages(kind, (1.0, 0.0), (0.7,), **options)[2])
        yield row(f"`{kind}`" + (f", `{settings}`" if settings else ""), shown(value))


def ids() -> Iterator[str]:
    """Two ids that float32 cannot tell apart."""
    numbers = torch.tensor([2**24, 2**24 + 1])
    yield row("as int64", *numbers.tolist())
    yield row("through float32", *numbers.float().long().tolist())


def clip() -> Iterator[str]:
    """The advantage of one success among n failures and the smallest n that a clip at 5 acts on."""
    sizes = (8, 16, 26, 27, 64, 256)
    yield row("samples", *sizes)
    found = [float(advantages("grpo", (1.0, *(0.0,) * (size - 1)), eps=0.0).max()) for size in sizes]
    yield row("advantage", *(f"{value:.2f}" for value in found))


FIGURES: dict[str, Callable[[], Iterator[str]]] = {
    "equal": equal,
    "deviation": deviation,
    "scope": scope,
    "singletons": singletons,
    "ids": ids,
    "clip": clip,
}


def main() -> None:
    """Print a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=tuple(FIGURES))
    print("\n".join(FIGURES[parser.parse_args().figure]()))


if __name__ == "__main__":
    main()
