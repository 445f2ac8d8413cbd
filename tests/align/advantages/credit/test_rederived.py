"""Second derivation of the credit estimators: dictionaries of tuples, loops over positions, the papers' formulas only.

Groups are interleaved and unequal, masks have holes, rollouts end at different places; one rollout has no score.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

SEEDS = range(12)
WIDTH = 6


def batch(seed):
    """Rewards 0 .. 1 with ties, ids of four groups, a mask with holes, few tokens so that prefixes are shared."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([group for group in range(4) for _ in range(2 + (seed + 3 * group) % 5)])
    ids = ids[torch.randperm(len(ids), generator=generator)]
    rewards = (torch.randint(5, (len(ids),), generator=generator) / 4).double()
    rewards[2] = math.nan
    lengths = torch.randint(2, WIDTH + 1, (len(ids),), generator=generator)
    mask = torch.arange(WIDTH) < lengths.unsqueeze(1)
    mask[::3, 0] = False
    tokens = torch.randint(2, (len(ids), WIDTH), generator=generator)
    return rewards, ids, mask, tokens, generator


def groups_of(rewards, ids):
    found = {}
    for i, group in enumerate(ids.tolist()):
        if not math.isnan(rewards[i]):
            found.setdefault(group, []).append(i)
    return found


def mean(values):
    return sum(values) / len(values)


def std(values, ddof):
    return math.sqrt(sum((value - mean(values)) ** 2 for value in values) / (len(values) - ddof))


def zscores(rewards, rows, ddof=1, eps=1e-6):
    own = [float(rewards[i]) for i in rows]
    if len(own) < 2 or max(own) == min(own):
        return dict.fromkeys(rows, 0.0)
    return {i: (float(rewards[i]) - mean(own)) / (std(own, ddof) + eps) for i in rows}


def end_of(mask, i):
    """Number of positions up to the last trained one."""
    return max(t for t in range(mask.shape[1]) if mask[i, t]) + 1


def agree(result, expected):
    assert_close(result.advantages.double(), torch.tensor(expected).double(), atol=2e-6, rtol=2e-6)


def zeros(mask):
    return [[0.0] * mask.shape[1] for _ in range(len(mask))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loo", [False, True])
def test_tempo(seed, loo):
    """((r - mu) + V(prefix with the token) - V(prefix)) / (s + eps); V: mean reward of the rollouts of that prefix.

    A rollout that stops counts at the prefix where it stops. With `loo` the rollout is taken out of mu and V(prefix),
    and stays in V(prefix with the token); alone at a prefix it has no temporal difference.
    """
    rewards, ids, mask, tokens, _ = batch(seed)
    expected = zeros(mask)
    for rows in groups_of(rewards, ids).values():
        paths = {i: tuple(tokens[i, : end_of(mask, i)].tolist()) for i in rows}
        own = [float(rewards[i]) for i in rows]
        if len(rows) < 2 or max(own) == min(own):
            continue

        def value(prefix, without=None, rows=rows, paths=paths):
            through = [float(rewards[j]) for j in rows if j != without and paths[j][: len(prefix)] == prefix]
            return mean(through) if through else None

        for i in rows:
            base = float(rewards[i]) - value((), i if loo else None)
            for t in range(len(paths[i])):
                before = value(paths[i][:t], i if loo else None)
                step = 0.0 if before is None else value(paths[i][: t + 1]) - before
                expected[i][t] = (base + step) / (std(own, 1) + 1e-6) if mask[i, t] else 0.0
    agree(
        estimate("tempo", AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, token_ids=tokens), loo=loo),
        expected,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_spo_tree(seed):
    """V(leaf) = mean reward of its rollouts, V(node) = mean of the *children's* values; A = V(child) - V(parent).

    A rollout that stops where others go on is a leaf of its own under that node.
    """
    rewards, ids, mask, tokens, _ = batch(seed)
    expected = zeros(mask)
    for rows in groups_of(rewards, ids).values():
        own = [float(rewards[i]) for i in rows]
        if len(rows) < 2 or max(own) == min(own):
            continue
        paths = {i: (*tokens[i, : end_of(mask, i)].tolist(), "end") for i in rows}

        def value(prefix, rows=rows, paths=paths):
            through = [j for j in rows if paths[j][: len(prefix)] == prefix]
            if prefix and prefix[-1] == "end":
                return mean([float(rewards[j]) for j in through])
            return mean([value((*prefix, token)) for token in {paths[j][len(prefix)] for j in through}])

        for i in rows:
            for t in range(len(paths[i]) - 1):
                if mask[i, t]:
                    expected[i][t] = value(paths[i][: t + 1]) - value(paths[i][:t])
    agree(estimate("spo_tree", AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, token_ids=tokens)), expected)


def turns(seed):
    """Two positions a turn; the states before each turn and after the last, actions of each turn."""
    rewards, ids, mask, _, generator = batch(seed)
    mask[:] = torch.arange(WIDTH) < 2 * ((mask.sum(dim=1, keepdim=True) + 1) // 2).clamp(min=1)
    turn = torch.where(mask, torch.arange(WIDTH).expand_as(mask) // 2, -1)
    count = (mask.sum(dim=1) + 1) // 2
    states = torch.randint(2, (len(ids), WIDTH // 2 + 1), generator=generator)
    actions = torch.randint(2, (len(ids), WIDTH // 2 + 1), generator=generator)
    return rewards, ids, mask, turn, count.tolist(), states, actions


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("counting", ["occurrence", "trajectory"])
@pytest.mark.parametrize("history", [0, 1])
def test_salt(seed, counting, history):
    """Mean of GRPO's advantage over all steps of the prompt with the same (state, action, next state)."""
    rewards, ids, mask, turn, count, states, actions = turns(seed)
    expected = zeros(mask)
    for rows in groups_of(rewards, ids).values():
        base = zscores(rewards, rows)

        def edge(i, k):
            past = tuple((int(states[i, h]), int(actions[i, h])) for h in range(max(k - history, 0), k))
            return (past, int(states[i, k]), int(actions[i, k]), int(states[i, k + 1]))

        members = {}
        for i in rows:
            for k in range(count[i]):
                members.setdefault(edge(i, k), []).append(i)
        for i in rows:
            for t in range(WIDTH):
                if mask[i, t]:
                    took = members[edge(i, int(turn[i, t]))]
                    expected[i][t] = mean([base[j] for j in (took if counting == "occurrence" else set(took))])
    inputs = AdvantageInputs(
        rewards=rewards, group_ids=ids, mask=mask, turn_id=turn, state_key=states, action_key=actions
    )
    agree(estimate("salt", inputs, counting=counting, history=history), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", ["std", "none"])
def test_gigpo(seed, scale):
    """Episode z-score + omega times the z-score of gamma^(turns left) r among all steps from the same state."""
    rewards, ids, mask, turn, count, states, _ = turns(seed)
    gamma, omega, expected = 0.9, 0.5, zeros(mask)
    for rows in groups_of(rewards, ids).values():
        centre = mean([float(rewards[i]) for i in rows])
        episode = zscores(rewards, rows)
        if scale == "none":
            episode = {i: (float(rewards[i]) - centre) if len(rows) > 1 else 0.0 for i in rows}
        onward = {(i, k): gamma ** (count[i] - 1 - k) * float(rewards[i]) for i in rows for k in range(count[i])}
        for i in rows if len(rows) > 1 else ():
            for t in range(WIDTH):
                if not mask[i, t]:
                    continue
                k = int(turn[i, t])
                same = [onward[j, h] for j, h in onward if states[j, h] == states[i, k]]
                step = 0.0
                if len(same) > 1 and max(same) > min(same):
                    step = (onward[i, k] - mean(same)) / (std(same, 1) + 1e-6 if scale == "std" else 1.0)
                expected[i][t] = episode[i] + omega * step
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, turn_id=turn, state_key=states)
    agree(estimate("gigpo", inputs, gamma=gamma, omega=omega, scale=scale), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pools", ["separate", "joint"])
def test_igpo(seed, pools):
    """Gains of all turns but the last and outcomes, standardised in their pools (n, + 1e-8), summed from a turn on."""
    rewards, ids, mask, turn, count, *_ = turns(seed)
    confidence = -torch.rand(len(ids), WIDTH // 2 + 1, generator=torch.Generator().manual_seed(seed)).double()
    gamma, expected = 0.9, zeros(mask)
    for rows in groups_of(rewards, ids).values():
        gains = {(i, k): float(confidence[i, k + 1] - confidence[i, k]) for i in rows for k in range(count[i] - 1)}
        outcomes = {(i, count[i] - 1): float(rewards[i]) for i in rows}
        turn_rewards = {}
        for pool in (gains, outcomes) if pools == "separate" else ({**gains, **outcomes},):
            numbers = list(pool.values())
            flat = len(numbers) < 2 or max(numbers) == min(numbers)
            for key, number in pool.items():
                turn_rewards[key] = 0.0 if flat else (number - mean(numbers)) / (std(numbers, 0) + 1e-8)
        for i in rows:
            for t in range(WIDTH):
                if mask[i, t]:
                    k = int(turn[i, t])
                    expected[i][t] = sum(gamma ** (h - k) * turn_rewards[i, h] for h in range(k, count[i]))
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, turn_id=turn, confidence=confidence)
    agree(estimate("igpo", inputs, pools=pools, gamma=gamma), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_mars_turn(seed):
    """Undiscounted return of a turn minus the mean of the returns of all turns of the same game and player."""
    rewards, ids, mask, turn, count, *_ = turns(seed)
    generator = torch.Generator().manual_seed(seed)
    paid = torch.where(mask, torch.rand(mask.shape, generator=generator), 0.0).double()
    player = torch.randint(2, (len(ids),), generator=generator)
    expected, pools, onward = zeros(mask), {}, {}
    for i in range(len(ids)):
        if math.isnan(rewards[i]):
            continue
        for k in range(count[i]):
            later = [float(paid[i, t]) for t in range(WIDTH) if mask[i, t] and turn[i, t] >= k]
            onward[i, k] = sum(later)
            pools.setdefault((int(ids[i]), int(player[i])), []).append(onward[i, k])
    for i, t in torch.cartesian_prod(torch.arange(len(ids)), torch.arange(WIDTH)).tolist():
        if mask[i, t] and not math.isnan(rewards[i]):
            pool = pools[int(ids[i]), int(player[i])]
            expected[i][t] = onward[i, int(turn[i, t])] - mean(pool)
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, turn_id=turn, token_rewards=paid, player=player)
    agree(estimate("mars_turn", inputs), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("interval", [1, 2])
def test_spo_chain(seed, interval):
    """Cuts before every `interval`-th unsure position; its unsure positions get a segment's change of the value."""
    rewards, ids, mask, *_ = batch(seed)
    generator = torch.Generator().manual_seed(seed)
    probability = torch.rand(mask.shape, generator=generator).double() * 0.9 + 0.05
    values = torch.rand(mask.shape, generator=generator).double()
    expected = zeros(mask)
    for i in range(len(ids)):
        if math.isnan(rewards[i]):
            continue
        unsure = [t for t in range(WIDTH) if mask[i, t] and probability[i, t] < 0.5]
        starts = unsure[::interval]
        for number, start in enumerate(starts):
            following = starts[number + 1] if number + 1 < len(starts) else None
            after = float(rewards[i]) if following is None else float(values[i, number + 1])
            for t in unsure:
                if t >= start and (following is None or t < following):
                    expected[i][t] = after - float(values[i, number])
    inputs = AdvantageInputs(
        rewards=rewards, group_ids=ids, mask=mask, logprobs=probability.log(), values_at_cuts=values
    )
    agree(estimate("spo_chain", inputs, rho=0.5, interval=interval), expected)


def tree(seed):
    """Full binary trees of three splits: leaves of two prompts, interleaved; step keys number the branches taken."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.cartesian_prod(*[torch.arange(2)] * 3).repeat(2, 1)
    ids = torch.arange(2).repeat_interleave(8)
    order = torch.randperm(16, generator=generator)
    rewards = (torch.randint(7, (16,), generator=generator) / 6).double()
    return rewards[order], ids[order], keys[order]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["branch_grpo", "tree_grpo"])
def test_denoising_trees(seed, kind):
    """BranchGRPO: a node's mean of leaves against all nodes of its depth. TreeGRPO: mean of the leaves' z-scores."""
    rewards, ids, keys = tree(seed)
    expected = [[0.0] * 3 for _ in range(16)]
    for rows in groups_of(rewards, ids).values():
        leaf = zscores(rewards, rows, eps=1e-8)
        for depth in (1, 2, 3):
            nodes = {}
            for i in rows:
                nodes.setdefault(tuple(keys[i, :depth].tolist()), []).append(i)
            values = {node: mean([float(rewards[i]) for i in below]) for node, below in nodes.items()}
            spread = std(list(values.values()), 1)
            for node, below in nodes.items():
                centred = values[node] - mean(list(values.values()))
                ours = centred / (spread + 1e-8) if spread > 1e-6 else 0.0
                for i in below:
                    expected[i][depth - 1] = ours if kind == "branch_grpo" else mean([leaf[j] for j in below])
    mask = torch.ones(16, 3)
    agree(estimate(kind, AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, step_key=keys)), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_egae(seed):
    """delta_t = r_t + gamma V_next - V_t over valid positions; behind a truncation the last value again."""
    rewards, ids, mask, *_ = batch(seed)
    generator = torch.Generator().manual_seed(seed)
    values, paid = (torch.rand(mask.shape, generator=generator).double() for _ in range(2))
    truncated = torch.rand(len(ids), generator=generator) < 0.5
    expected = zeros(mask)
    for i in range(len(ids)):
        if math.isnan(rewards[i]):
            continue
        valid = [t for t in range(WIDTH) if mask[i, t]]
        following, onward = (float(values[i, valid[-1]]) if truncated[i] else 0.0), 0.0
        for t in reversed(valid):
            delta = float(paid[i, t]) + 0.9 * following - float(values[i, t])
            onward = expected[i][t] = delta + 0.9 * 0.8 * onward
            following = float(values[i, t])
    inputs = AdvantageInputs(
        rewards=rewards, group_ids=ids, mask=mask, values=values, token_rewards=paid, truncated=truncated
    )
    agree(estimate("egae", inputs, gamma=0.9, lam=0.8), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", ["soft", "exact"])
def test_pure_min(seed, form):
    """Soft or exact minimum of the step scores as a return, minus the others' returns per allowed token, plus RLOO."""
    rewards, ids, mask, *_ = batch(seed)
    generator = torch.Generator().manual_seed(seed)
    ends = torch.zeros_like(mask)
    for i in range(len(ids)):
        valid = [t for t in range(WIDTH) if mask[i, t]]
        ends[i, [valid[len(valid) // 2 - 1] if len(valid) > 1 else valid[0], valid[-1]]] = True
    scores = torch.where(ends, 2 * torch.rand(mask.shape, generator=generator).double() - 1, 0.0)
    expected, onward = zeros(mask), {}
    for i in range(len(ids)):
        steps = [t for t in range(WIDTH) if ends[i, t]]
        r = [float(scores[i, t]) for t in steps]
        if form == "soft":
            weights = [math.exp(-(x - min(r)) / 0.1) for x in r]
            paid = {t: w / sum(weights) * x for t, w, x in zip(steps, weights, r, strict=True)}
        else:
            paid = {steps[r.index(min(r))]: min(r)}
        onward[i] = {t: sum(x for s, x in paid.items() if s >= t) for t in range(WIDTH) if mask[i, t]}
    for rows in groups_of(rewards, ids).values():
        for i in rows if len(rows) > 1 else ():
            others = [j for j in rows if j != i]
            baseline = sum(sum(onward[j].values()) for j in others) / (len(others) * 10)
            outcome = float(rewards[i]) - mean([float(rewards[j]) for j in others])
            for t, value in onward[i].items():
                expected[i][t] = value - baseline + 0.5 * outcome
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, token_rewards=scores, step_end=ends)
    agree(estimate("pure_min", inputs, form=form, outcome_coef=0.5, max_length=10), expected)
