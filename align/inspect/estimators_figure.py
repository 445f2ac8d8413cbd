"""The figure of docs/advantages.md: every estimator on the same three groups of four samples.

Above, estimators of whole samples: a number per sample. Below, estimators per token: each sample is four positions, in
two turns of two, and the rollouts of a group share their first tokens like the branches of a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.advantages import AdvantageInputs, available, estimate
from align.advantages.registry import find

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES = ("base", "shaper", "loss", "rollout")
REWARDS = ((1.0, 0.0, 0.0, 0.0), (0.70, 0.72, 0.74, 0.90), (0.50, 0.50, 0.50, 0.50))
"""Three groups: one success, a continuous score with an outlier, all equal."""
TITLES = ("one success", "continuous, one outlier", "all equal")
PATHS = ("aaaa", "aaba", "abaa", "baaa")
"""Tokens of the four rollouts of each group, in the lower half: where rollouts part."""
SHOWN: Mapping[str, Mapping[str, Any]] = {"novelty_bonus": {"coefficient": 0.5}, "spo_chain": {"interval": 1}}
"""Options that are not the defaults, because the defaults would show nothing here; the figure names them."""
SEEN = {"keys": torch.tensor([1, 3]), "counts": torch.tensor([8, 3])}
"""State after earlier steps, for the estimator that counts states: two of them are known."""
STEP_SCORES = ("token_rewards", "step_end")
"""Given to the estimators that need them only: for others they would replace the rewards that all have in common."""


def example() -> AdvantageInputs:
    """Three groups of four samples, with everything that an estimator of whole samples may ask for.

    Lengths, metric, likelihoods and rank features differ within a group in the same way in all three.
    """
    rewards = torch.tensor(REWARDS).flatten()
    place = torch.arange(4).repeat(3)
    lengths = torch.tensor([4, 6, 8, 2])[place]
    mask = (torch.arange(8) < lengths.unsqueeze(1)).long()
    return AdvantageInputs(
        rewards=rewards,
        group_ids=torch.arange(3).repeat_interleave(4),
        lengths=lengths,
        mask=mask,
        metric=torch.tensor([0.1, 0.4, 0.2, 0.3])[place],
        user_groups=torch.arange(3).repeat_interleave(4),
        answers=list("abbc" * 3),
        correct=(rewards >= 0.9),
        greedy_rewards=torch.full((12,), 0.5),
        reference_rewards=torch.full((12,), 0.5),
        first_tool_pos=torch.tensor([1, 2, 0, -1])[place],
        rank_features=torch.tensor([[1.0, 0.2, 0.1], [2.0, 0.1, 0.0], [3.0, 0.3, 0.2], [4.0, 0.0, 0.1]])[place],
        logprobs=-0.5 * (1 + place.double()).unsqueeze(1) * mask,
    )


def example_of_tokens() -> AdvantageInputs:
    """The same rewards and groups; what happens at the four positions differs within a group, alike in all three."""
    place = torch.arange(4).repeat(3)
    tokens = torch.tensor([["ab".index(token) for token in path] for path in PATHS])
    sure = torch.tensor([[0.5, 1.0, 0.7, 1.0], [0.6, 1.0, 0.5, 1.0], [0.7, 0.4, 1.0, 1.0], [0.3, 1.0, 1.0, 0.8]])
    logits = torch.tensor([[2.0, 9.0, 4.0, 8.0], [3.0, 8.0, 2.0, 9.0], [4.0, 1.0, 7.0, 8.0], [1.0, 7.0, 8.0, 5.0]])
    beliefs = torch.tensor([[-2.0, -1.0, -0.5], [-2.0, -1.5, -1.5], [-2.0, -2.0, -1.0], [-2.0, -2.5, -3.0]])
    rewards = torch.tensor(REWARDS).flatten()
    # Shares of the way from 0.25 to the reward that the implied pictures have gone, before each step and at the end.
    shares = torch.tensor([[0, 0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5, 1], [0, 0.2, 0.4, 0.8, 1], [0, 0.2, 0.2, 0.6, 1]])
    return AdvantageInputs(
        rewards=rewards,
        group_ids=torch.arange(3).repeat_interleave(4),
        mask=torch.ones(12, 4),
        done_reward_seq=0.25 + (rewards - 0.25).unsqueeze(1) * shares[place],
        token_ids=tokens[place],
        turn_id=torch.tensor([0, 0, 1, 1]).expand(12, 4),
        state_key=torch.tensor([[0, 1, 3], [0, 1, 4], [0, 1, 5], [0, 2, 6]])[place],
        action_key=torch.tensor([[0, 0], [0, 1], [0, 2], [1, 1]])[place],
        values=torch.tensor([0.4, 0.5, 0.5, 0.6]).expand(12, 4),
        values_at_cuts=torch.tensor([0.4, 0.5, 0.6, 0.6]).expand(12, 4),
        truncated=torch.tensor([False, False, False, True])[place],
        confidence=beliefs[place],
        logprobs=sure.log()[place],
        token_logits=logits[place],
        self_certainty=logits[place] / 2,
        token_rewards=torch.tensor([[0, 0.6, 0, 0.4], [0, 0.6, 0, -0.2], [0, -0.1, 0, 0.5], [0, 0.2, 0, 0.2]])[place],
        step_end=torch.tensor([False, True, False, True]).expand(12, 4),
    )


def compared_samples() -> Iterator[tuple[str, Tensor]]:
    """Kind and advantages, for every estimator that gives one number per sample."""
    for kind in _kinds("sample"):
        yield kind, estimate(kind, example(), **SHOWN.get(kind, {})).advantages


def compared_tokens() -> Iterator[tuple[str, Tensor]]:
    """Kind and advantages `[12, 4]`, for every estimator that gives one number per position."""
    everything = example_of_tokens()
    without_scores = replace(everything, **dict.fromkeys(STEP_SCORES))
    for kind in _kinds("token"):
        inputs = everything if set(STEP_SCORES) <= set(find(kind).requires) else without_scores
        state = SEEN if kind == "novelty_bonus" else None
        yield kind, estimate(kind, inputs, state=state, **SHOWN.get(kind, {})).advantages


def _kinds(granularity: str) -> list[str]:
    kinds = [kind for kind in available() if find(kind).granularity == granularity]
    return sorted(kinds, key=lambda kind: (STAGES.index(find(kind).stage), kind))


def figure(path: Path) -> None:
    """Both halves, a row for each estimator, a number and a colour for each sample or position.

    Purple is pushed up and orange is pushed down, each row in its own unit: colours compare within a row.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    samples, tokens = list(compared_samples()), list(compared_tokens())
    heights = (len(samples), len(tokens))
    plot, (above, below) = pyplot.subplots(
        2, 1, figsize=(15, 0.29 * sum(heights) + 3.2), height_ratios=heights, gridspec_kw={"hspace": 0.16}
    )
    _draw(above, samples, lambda value: f"{value:+.2f}", 8.5)
    _draw(below, [(kind, values.flatten()) for kind, values in tokens], _short, 6.2)
    rewards = [f"{reward:.2f}" for group in REWARDS for reward in group]
    _columns(above, [i + 0.5 for i in range(12)], rewards, 10)
    letters = [letter for _ in REWARDS for tokens_of in PATHS for letter in tokens_of]
    _columns(below, [(i + 0.5) / 4 for i in range(48)], letters, 8)
    for number, title in enumerate(TITLES):
        above.annotate(title, (4 * number + 2, 1), xycoords=("data", "axes fraction"), xytext=(0, 24),
                       textcoords="offset points", ha="center", weight="bold", fontsize=11)  # fmt: skip
    for number, reward in enumerate(rewards):
        below.annotate(reward, (number + 0.5, 1), xycoords=("data", "axes fraction"), xytext=(0, 18),
                       textcoords="offset points", ha="center", fontsize=10)  # fmt: skip
    above.set_title("one advantage per sample (columns: its reward)", loc="left", fontsize=10, pad=42)
    below.set_title(
        "one advantage per position (columns: the sample's reward and tokens)", loc="left", fontsize=10, pad=34
    )
    below.set_xlabel("purple: pushed up, orange: pushed down; colours are scaled within a row", fontsize=10)
    plot.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(plot)


def _short(value: float) -> str:
    """At most four characters: +.53, -1.5."""
    return f"{value:+.1f}" if abs(value) >= 0.995 else f"{value:+.2f}".replace("0.", ".")


def _draw(axes: Axes, rows: list[tuple[str, Tensor]], write: Callable[[float], str], size: float) -> None:
    """Coloured numbers, one or several for each of the twelve samples."""
    from matplotlib.colors import TwoSlopeNorm

    colours = torch.stack([values / values.abs().max().clamp(min=1e-12) for _, values in rows])
    axes.imshow(
        colours.numpy(), cmap="PuOr", norm=TwoSlopeNorm(0, -1.6, 1.6), aspect="auto", extent=(0, 12, len(rows), 0)
    )
    parts = colours.shape[1] // 12
    for y, (_, values) in enumerate(rows):
        for x, value in enumerate(values.tolist()):
            ink = "white" if colours[y, x] > 0.7 else "black"
            axes.text(
                (x + 0.5) / parts,
                y + 0.5,
                "0" if value == 0 else write(value),
                ha="center",
                va="center",
                fontsize=size,
                color=ink,
                zorder=3,
            )
    names = [kind + "".join(f" ({name} {value})" for name, value in SHOWN.get(kind, {}).items()) for kind, _ in rows]
    axes.set_yticks([y + 0.5 for y in range(len(rows))], names, fontsize=9)
    for edge in range(1, 12):
        wide = 4 if edge % 4 == 0 else 1.5
        if edge % 4 == 0 or parts > 1:
            axes.axvline(edge, color="white", linewidth=wide, zorder=2)


def _columns(axes: Axes, places: list[float], names: list[str], size: float) -> None:
    axes.set_xticks(places, names, fontsize=size)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
