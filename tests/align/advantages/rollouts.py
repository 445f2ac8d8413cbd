"""Rollouts with every field that some estimator reads, so that one test can walk over all of them."""

import torch

from align.advantages import AdvantageInputs

T, ROWS, TURNS = 6, 64, 2


def _table():
    """One row per rollout; a permuted batch takes permuted rows."""
    generator = torch.Generator().manual_seed(11)

    def uniform(*shape):
        return torch.rand(ROWS, *shape, generator=generator)

    def integers(high, *shape):
        return torch.randint(high, (ROWS, *shape), generator=generator)

    lengths = 3 + integers(4)
    mask = torch.arange(T) < lengths.unsqueeze(1)
    mask[::5, 1] = False  # a hole: output of a tool
    turns = torch.tensor([0, 0, 0, 1, 1, 1]).expand(ROWS, T).clone()
    steps = torch.tensor([0, 0, 1, 1, 2, 2]).expand(ROWS, T).clone()
    ends = torch.tensor([False, True]).repeat(3).expand(ROWS, T).clone()
    return {
        "mask": mask,
        "logprobs": -uniform(T),
        "ref_logprobs": -uniform(T),
        "entropies": 3 * uniform(T),
        "token_logits": 10 * uniform(T),
        "self_certainty": 5 * uniform(T),
        "values": uniform(T),
        "values_at_cuts": uniform(T + 1),
        "bootstrap_values": uniform(),
        "confidence": -uniform(TURNS + 1),
        "token_rewards": uniform(T),
        "metric": uniform(),
        "greedy_rewards": uniform(),
        "reference_rewards": uniform(),
        "first_tool_pos": integers(5) - 1,
        "rank_features": uniform(3),
        "token_ids": integers(2, T),
        "step_key": integers(2, T),
        "truncated": integers(2).bool(),
        "seg_id": torch.where(mask, steps, -1),
        "step_end": ends & mask,
        "turn_id": torch.where(mask, turns, -1),
        "state_key": integers(3, TURNS + 1),
        "action_key": integers(3, TURNS + 1),
        "done_reward_seq": uniform(T + 1),
        "user_groups": integers(3),
    }


TABLE = _table()
ANSWERS = [None if row % 7 == 0 else "abc"[row % 3] for row in range(ROWS)]


def rollouts(rewards, ids, rows=None, **fields):
    """Inputs with these rewards and groups; `rows`: which rollouts they are, by default the first ones in order."""
    rows = torch.arange(len(rewards)) if rows is None else rows
    known = AdvantageInputs.__dataclass_fields__
    filled = {name: values[rows] for name, values in TABLE.items() if name in known}
    filled |= {"answers": [ANSWERS[row] for row in rows.tolist()], "correct": rewards >= 0.5, "step": 3}
    filled |= fields
    if filled["mask"] is not None and filled["done_reward_seq"] is not None:  # fewer positions, if asked
        filled["done_reward_seq"] = filled["done_reward_seq"][:, : filled["mask"].shape[1] + 1]
    return AdvantageInputs(rewards=rewards, group_ids=ids, **filled)


def interleaved(seed, smallest=2, largest=5):
    """Rewards 0, 1/8, .. 1 with ties, and ids of two to five groups of unequal size, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(smallest, largest + 1, (2 + seed % 4,), generator=generator)
    ids = torch.cat([torch.full((int(size),), 97 * number - 100) for number, size in enumerate(sizes)])
    rewards = torch.randint(9, (len(ids),), generator=generator) / 8
    order = torch.randperm(len(ids), generator=generator)
    return rewards[order], ids[order]
