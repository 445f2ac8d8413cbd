"""Every estimator whose numbers need all rows of a step: two processes against one; run under torchrun.

Rank 0 holds 5 rows, rank 1 the rest, dealt out in turns, so that groups are torn apart. Each gathers, estimates on
all rows in global order and keeps its own, as a run does.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from align.advantages import AdvantageInputs, AdvantageResult, available
from align.advantages.inputs import BATCH_FIELDS
from align.advantages.registry import Options, find, make_options
from align.advantages.rules import apply_rules, with_base
from align.config.group_relative import Grpo
from align.engine.distributed import Processes, start_accelerator

ROWS, TOKENS, TURNS = 17, 6, 2
STEPS = 2
"""Calls in a row: those with a memory show whether it is the same on both processes."""


def table(step: int) -> AdvantageInputs:
    """All rows of a step with every field that some estimator reads; groups of unequal size, one row unscored."""
    generator = torch.Generator().manual_seed(step)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(ROWS, *shape, generator=generator)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, (ROWS, *shape), generator=generator)

    rewards = integers(9) / 8
    rewards[3] = float("nan")
    turns = torch.arange(TOKENS).div(TOKENS // TURNS, rounding_mode="floor").expand(ROWS, TOKENS)
    mask = torch.arange(TOKENS) < 3 + integers(4, 1)
    return AdvantageInputs(
        rewards=rewards,
        group_ids=2**40 + 7 * (torch.arange(ROWS) * 5 % 4),  # far above what float32 can tell apart
        mask=mask,
        logprobs=-uniform(TOKENS),
        token_rewards=uniform(TOKENS),
        self_certainty=5 * uniform(TOKENS),
        token_logits=10 * uniform(TOKENS),
        rank_features=uniform(3),
        answers=["abc"[row % 3] for row in range(ROWS)],
        correct=rewards >= 0.5,
        step_end=(torch.arange(TOKENS) % 2 == 1) & mask,
        turn_id=torch.where(mask, turns, -1),
        state_key=integers(3, TURNS + 1),
        metric=uniform(),
        user_groups=torch.arange(ROWS) * 5 % 4 % 2,
        agent=(torch.arange(ROWS) >= 8).long(),
        parent=torch.arange(ROWS) * 5 % 4,
        call=torch.arange(ROWS),
        step=step,
    )


def gathered(inputs: AdvantageInputs, rows: Tensor, processes: Processes) -> AdvantageInputs:
    """All rows in global order, from each process's own."""
    own = inputs.select(rows)
    order = processes.gather_rows(rows).argsort()
    found = {}
    for item in fields(own):
        value = getattr(own, item.name)
        if value is None or item.name in BATCH_FIELDS:
            continue
        if isinstance(value, Tensor):
            found[item.name] = processes.gather_rows(value)[order]
        else:  # answers: texts travel as objects
            parts = [entry for part in processes.gather_objects(list(value)) for entry in part]
            found[item.name] = [parts[place] for place in order.tolist()]
    return replace(own, **found)


def over_batches() -> list[Options]:
    """Settings of every estimator that is, or can be, of batch scope."""
    defaults = [make_options(find(kind), {}) for kind in available()]
    chosen = [options for options in defaults if find(options.kind).scope_of(options) == "batch"]
    return [*chosen, Grpo(scale="batch"), *([make_options(find("reference_gain"), {"scale": "batch"})])]


def estimates(options: Options, inputs: list[AdvantageInputs]) -> list[AdvantageResult]:
    """One result per step; the state of a step goes into the next."""
    entry, state, results = find(options.kind), None, []
    for batch in inputs:
        shaped, _ = with_base(entry, batch)
        results.append(apply_rules(entry, shaped, options, state))
        state = results[-1].state
    return results


def main() -> None:
    """Compare, bit for bit, and print how many estimators agreed."""
    processes = Processes(start_accelerator())
    assert processes.world == 2
    everyone = torch.arange(ROWS)
    owner = ((everyone % 3) == 0).long() * (everyone < 15)  # 5 rows here, 12 there
    rows = everyone[owner == (1 - processes.rank)]
    assert processes.gather_objects(len(rows)) == [5, 12]
    whole = [replace(table(step), reference_rewards=torch.zeros(ROWS)) for step in range(1, STEPS + 1)]
    parts = [gathered(batch, rows, processes) for batch in whole]
    kinds = []
    for options in over_batches():
        alone, together = estimates(options, whole), estimates(options, parts)
        for one, two in zip(alone, together, strict=True):
            assert torch.equal(one.advantages[rows], two.advantages[rows]), options
            assert one.advantages.abs().max() > 0 or options.kind == "novelty_bonus", options
            assert one.stats == two.stats, options
            states = [{name: torch.as_tensor(v).tolist() for name, v in result.state.items()} for result in (one, two)]
            assert states[0] == states[1], options
        kinds.append(options.kind)
    print(f"equal bit for bit: {' '.join(kinds)}", flush=True)


if __name__ == "__main__":
    main()
