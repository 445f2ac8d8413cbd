"""How fast advantages are computed: ratios in one process on one core, each by one command.

    python benchmarks/advantages.py groups    262,144 rewards in groups of 16 against public trainers' loop over groups
    python benchmarks/advantages.py tokens    tempo, salt, spo_tree on 512 rollouts x 1,024 tokens, and their growth

Every time is the median of several runs and includes all checks and statistics of `estimate`. The loops are written
here, once per estimator, the way public trainers do it: a dictionary from id to a list of scores, `torch.mean` and
`torch.std` per group, one sample after the other. Both sides must agree before their times are compared.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from align.advantages import AdvantageInputs, available, estimate
from align.advantages.registry import Estimator, find, make_options

SAMPLES, GROUP = 262_144, 16
ROLLOUTS, TOKENS, LENGTHS = 512, 1024, (256, 512, 1024, 2048)
TREES = ("tempo", "salt", "spo_tree")
ENOUGH = {"ratio": 50.0, "seconds": 1.0}
"""What the suite promises: at least this ratio, at most these seconds."""

Scores = dict[int, list[Tensor]]
Answer = TypeVar("Answer")


def by_group(values: Tensor, ids: list[int]) -> Scores:
    """Values of each group, as the loops collect them."""
    found: Scores = defaultdict(list)
    for place, name in enumerate(ids):
        found[name].append(values[place])
    return found


def loop_grpo(rewards: Tensor, ids: list[int], lengths: Tensor) -> Tensor:
    """Mean and standard deviation of each group, then one sample after the other."""
    scores, mean, std = rewards.clone(), {}, {}
    for name, values in by_group(scores, ids).items():
        mean[name], std[name] = torch.mean(torch.stack(values)), torch.std(torch.stack(values))
    for place, name in enumerate(ids):
        scores[place] = (scores[place] - mean[name]) / (std[name] + 1e-4)
    return scores


def loop_dr_grpo(rewards: Tensor, ids: list[int], lengths: Tensor) -> Tensor:
    """Mean of each group."""
    scores = rewards.clone()
    mean = {name: torch.mean(torch.stack(values)) for name, values in by_group(scores, ids).items()}
    for place, name in enumerate(ids):
        scores[place] = scores[place] - mean[name]
    return scores


def loop_rloo(rewards: Tensor, ids: list[int], lengths: Tensor) -> Tensor:
    """Group mean without the sample itself."""
    scores, groups = rewards.clone(), by_group(rewards, ids)
    mean = {name: torch.mean(torch.stack(values)) for name, values in groups.items()}
    for place, name in enumerate(ids):
        count = len(groups[name])
        scores[place] = scores[place] * count / (count - 1) - mean[name] * count / (count - 1)
    return scores


def loop_opo(rewards: Tensor, ids: list[int], lengths: Tensor) -> Tensor:
    """Length-weighted mean of each group."""
    scores, weights = rewards.clone(), by_group(lengths.float(), ids)
    baseline = {
        name: (torch.stack(weights[name]) * torch.stack(values)).sum() / torch.stack(weights[name]).sum()
        for name, values in by_group(scores, ids).items()
    }
    for place, name in enumerate(ids):
        scores[place] = scores[place] - baseline[name]
    return scores


def loop_flow_grpo(rewards: Tensor, ids: list[int], lengths: Tensor) -> Tensor:
    """Mean of each group, standard deviation of all."""
    scores, std = loop_dr_grpo(rewards, ids, lengths), torch.std(rewards, correction=0)
    for place in range(len(ids)):
        scores[place] = scores[place] / (std + 1e-4)
    return scores


def loop_ngrpo(rewards: Tensor, ids: list[int], lengths: Tensor) -> Tensor:
    """GRPO with one more score of 1 in each group."""
    scores, mean, std = rewards.clone(), {}, {}
    for name, values in by_group(scores, ids).items():
        together = torch.stack([*values, torch.tensor(1.0)])
        mean[name], std[name] = torch.mean(together), torch.std(together)
    for place, name in enumerate(ids):
        scores[place] = (scores[place] - mean[name]) / (std[name] + 1e-6)
    return scores


def loop_pass_at_k(rewards: Tensor, ids: list[int], lengths: Tensor) -> Tensor:
    """Best minus second best of each group, at the best."""
    scores, places = torch.zeros_like(rewards), defaultdict(list)
    for place, name in enumerate(ids):
        places[name].append(place)
    for name, values in by_group(rewards, ids).items():
        top = torch.topk(torch.stack(values), 2)
        scores[places[name][int(top.indices[0])]] = top.values[0] - top.values[1]
    return scores


def loop_hapo_token_group(rewards: Tensor, ids: list[int], lengths: Tensor) -> Tensor:
    """Token-weighted mean and standard deviation of each group."""
    scores, weights, mean, std = rewards.clone(), by_group(lengths.float(), ids), {}, {}
    for name, values in by_group(scores, ids).items():
        share = torch.stack(weights[name]) / torch.stack(weights[name]).sum()
        mean[name] = (share * torch.stack(values)).sum()
        std[name] = (share * (torch.stack(values) - mean[name]) ** 2).sum().sqrt()
    for place, name in enumerate(ids):
        scores[place] = (scores[place] - mean[name]) / (std[name] + 1e-6)
    return scores


LOOPS: dict[str, Callable[[Tensor, list[int], Tensor], Tensor]] = {
    name.removeprefix("loop_"): value for name, value in dict(globals()).items() if name.startswith("loop_")
}


def compared_within_groups() -> Iterator[str]:
    """Every base that compares a sample with its group and needs nothing beside rewards, ids and lengths."""
    for kind in available():
        entry: Estimator = find(kind)
        options = make_options(entry, {})
        needs = set(entry.needs(options))
        alone = entry.stage == "base" and entry.granularity == "sample" and not entry.requires_any
        if alone and "group_ids" in needs <= {"group_ids", "lengths"} and entry.scope_of(options) == "group":
            yield kind


def measured(call: Callable[[], Answer], times: int) -> tuple[float, Answer]:
    """Median duration of a call in seconds, and what it answered."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        answer = call()
        found.append(time.perf_counter() - started)
    return statistics.median(found), answer


def once(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    return measured(call, 1)[0]


def groups(samples: int = SAMPLES, times: int = 3) -> dict[str, float]:
    """Loop seconds over our seconds, for every kind; prints a line each.

    Raises:
        ValueError: an estimator without a loop here, or two answers that differ.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(samples, generator=generator)
    ids = torch.arange(samples).div(GROUP, rounding_mode="floor")[order]
    rewards = torch.rand(samples, generator=generator)
    lengths = torch.randint(10, 1000, (samples,), generator=generator)
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, lengths=lengths)
    ratios = {}
    for kind in sorted({*compared_within_groups(), "flow_grpo"}):
        if kind not in LOOPS:
            raise ValueError(f"{kind} has no loop to be compared with: write `loop_{kind}` in this file.")
        names = ids.tolist()
        rounds = []  # side by side, so that what else the machine does meets both
        for _ in range(times):
            slow, loop = measured(lambda kind=kind, names=names: LOOPS[kind](rewards, names, lengths), 1)
            fast, ours = measured(lambda kind=kind: estimate(kind, inputs).advantages, 3)
            rounds.append((slow / fast, slow, fast))
        if not torch.allclose(loop, ours, rtol=1e-3, atol=1e-4):  # the loops sum in float32
            raise ValueError(f"{kind}: loop and estimator differ by up to {float((loop - ours).abs().max()):g}.")
        ratios[kind], slow, fast = sorted(rounds)[len(rounds) // 2]
        print(f"{kind:24}{slow:8.2f} s loop {1000 * fast:8.1f} ms ours {ratios[kind]:8.0f} x", flush=True)
    return ratios


def branching(rollouts: int, tokens: int) -> AdvantageInputs:
    """Groups of 16 rollouts that share their first tokens up to a random place: prefixes are deep and wide."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.arange(rollouts).div(GROUP, rounding_mode="floor")
    shared = torch.randint(32_000, (rollouts, tokens), generator=generator)[ids * GROUP]
    own = torch.randint(32_000, (rollouts, tokens), generator=generator)
    leaves = torch.randint(tokens, (rollouts, 1), generator=generator)
    keys = torch.where(torch.arange(tokens) < leaves, shared, own)
    rewards = torch.randint(9, (rollouts,), generator=generator) / 8
    return AdvantageInputs(rewards=rewards, group_ids=ids, mask=torch.ones(rollouts, tokens), token_ids=keys)


def fit(x: list[float], y: list[float]) -> tuple[float, float]:
    """Slope and R^2 of the least-squares line."""
    slope, intercept = statistics.linear_regression(x, y)
    rest = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
    return slope, 1 - rest / sum((b - statistics.fmean(y)) ** 2 for b in y)


def tokens(times: int = 9) -> dict[str, float]:
    """Seconds of each tree estimator at 512 x 1,024; prints the growth with the number of tokens."""
    batches = {length: branching(ROLLOUTS, length) for length in LENGTHS}
    found = {}
    for kind in TREES:
        # One length after the other, again and again: what else the machine does meets all of them alike.
        rounds = [
            [once(lambda kind=kind, batch=batch: estimate(kind, batch)) for batch in batches.values()]
            for _ in range(times)
        ]
        took = [statistics.median(column) for column in zip(*rounds, strict=True)]
        found[kind] = took[LENGTHS.index(TOKENS)]
        slope, straight = fit([float(length) for length in LENGTHS], took)
        exponent, _ = fit([math.log(length) for length in LENGTHS], [math.log(value) for value in took])
        listed = ", ".join(f"{length}: {value:.3f}" for length, value in zip(LENGTHS, took, strict=True))
        print(
            f"{kind:10}{found[kind]:6.3f} s at {ROLLOUTS} x {TOKENS};  seconds by tokens {listed};  "
            f"{1e6 * slope:.0f} us a token, R^2 {straight:.4f}, exponent of the log-log fit {exponent:.2f}",
            flush=True,
        )
    return found


def main() -> None:
    """Pick a figure; exits with 1 if a promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=("groups", "tokens"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread", flush=True)
    if options.figure == "groups":
        missed = [kind for kind, ratio in groups().items() if ratio < ENOUGH["ratio"]]
    else:
        missed = [kind for kind, value in tokens().items() if value > ENOUGH["seconds"]]
    sys.exit(f"missed by {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
