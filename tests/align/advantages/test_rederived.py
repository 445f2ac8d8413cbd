"""Second derivation of the estimators where a mistake is easiest: plain Python over lists, one sample at a time.

Written from the formulas of the papers alone, without the project's own statistics, and on purpose without a clever
step. Groups are interleaved and unequal, one has a single member, one is all equal, some rewards are missing.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, estimate

EQUAL, LONELY = 40, 41
SEEDS = range(12)


def batch(seed, levels=9):
    """Rewards 0 .. 1, ids of four mixed groups, one of equal rewards and one with a single member; two are missing."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(2, 7, (4,), generator=generator).tolist()
    ids = [group for group, size in enumerate(sizes) for _ in range(size)] + [EQUAL] * 3 + [LONELY]
    rewards = (torch.randint(levels, (len(ids),), generator=generator) / (levels - 1)).double()
    rewards[[i for i, group in enumerate(ids) if group == EQUAL]] = 0.7
    order = torch.randperm(len(ids), generator=generator)
    rewards, ids = rewards[order], torch.tensor(ids)[order]
    rewards[[1, 5]] = math.nan
    return rewards, ids, generator


def members(rewards, ids):
    """Group -> positions of its scored members, in the order of the batch."""
    found = {}
    for i, (reward, group) in enumerate(zip(rewards.tolist(), ids.tolist(), strict=True)):
        if not math.isnan(reward):
            found.setdefault(group, []).append(i)
    return found


def mean(values):
    return sum(values) / len(values)


def std(values, ddof):
    if len(values) <= ddof:
        return 0.0
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - ddof))


def group_zscores(values, groups, ddof=1, eps=1e-6):
    """value -> (value - mean) / (std + eps); 0 for one member or equal values."""
    result = [0.0] * len(values)
    for rows in groups.values():
        own = [values[i] for i in rows]
        if len(own) > 1 and max(own) > min(own):
            for i in rows:
                result[i] = (values[i] - mean(own)) / (std(own, ddof) + eps)
    return result


def agree(result, expected):
    assert_close(result.advantages.double(), torch.tensor(expected).double(), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_flow_grpo(seed):
    """Mean of the group, population standard deviation of every scored reward of the batch, + 1e-4."""
    rewards, ids, _ = batch(seed)
    groups, values = members(rewards, ids), rewards.tolist()
    spread = std([value for value in values if not math.isnan(value)], 0) + 1e-4
    expected = [0.0] * len(values)
    for rows in groups.values():
        for i in rows:
            expected[i] = (values[i] - mean([values[j] for j in rows])) / spread
    agree(estimate("flow_grpo", AdvantageInputs(rewards=rewards, group_ids=ids)), expected)


def test_ddpo_tracked():
    """Three steps; the buffer of a prompt holds its newest rewards, this step's included. With fewer than `min_count`
    in it, mean and standard deviation are the batch's. Equal rewards of a prompt are no zero: its past is compared."""
    buffers, state = {}, None
    for seed in (0, 1, 2):
        rewards, ids, _ = batch(seed)
        values, prompts = rewards.tolist(), ids.tolist()
        scored = [value for value in values if not math.isnan(value)]
        for value, prompt in zip(values, prompts, strict=True):
            if not math.isnan(value):
                buffers[prompt] = [*buffers.get(prompt, []), value][-7:]
        expected = []
        for value, prompt in zip(values, prompts, strict=True):
            known = buffers.get(prompt, [])
            chosen = known if len(known) >= 4 else scored
            expected.append(0.0 if math.isnan(value) else (value - mean(chosen)) / (std(chosen, 0) + 1e-6))
        expected = [value if abs(value) > 1e-9 else 0.0 for value in expected]
        inputs = AdvantageInputs(rewards=rewards, group_ids=ids, prompt_ids=ids)
        result = estimate("ddpo_tracked", inputs, state=state, buffer_size=7, min_count=4)
        agree(result, expected)
        state = result.state


def positions(seed, width=6):
    """Rewards, ids, a mask with holes and one row without any position, and numbers per position."""
    rewards, ids, generator = batch(seed)
    lengths = torch.randint(1, width + 1, (len(ids),), generator=generator)
    mask = torch.arange(width) < lengths.unsqueeze(1)
    mask[::4, 1] &= lengths[::4] < 3
    mask[3] = False
    logprobs, ref_logprobs = (-torch.rand(len(ids), width, generator=generator).double() for _ in range(2))
    return rewards, ids, mask, logprobs, ref_logprobs


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("gamma", "beta"), [(1.0, 0.0), (0.9, 0.0), (0.9, 0.3)])
def test_reinforce_pp(seed, gamma, beta):
    """Reward at the last position, minus beta (log pi - log pi_ref) everywhere; return over valid ones; whitened."""
    rewards, ids, mask, logprobs, ref_logprobs = positions(seed)
    n, width = mask.shape
    returns = {}
    for i in range(n):
        valid = [t for t in range(width) if mask[i, t]]
        if math.isnan(rewards[i]) or not valid:
            continue
        onward = 0.0
        for t in reversed(valid):
            own = float(rewards[i]) if t == valid[-1] else 0.0
            own -= beta * float(logprobs[i, t] - ref_logprobs[i, t])
            onward = own + gamma * onward
            returns[i, t] = onward
    centre, spread = mean(list(returns.values())), std(list(returns.values()), 1)
    expected = [[0.0] * width for _ in range(n)]
    for (i, t), value in returns.items():
        expected[i][t] = (value - centre) / math.sqrt(spread**2 + 1e-8)
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    agree(estimate("reinforce_pp", inputs, gamma=gamma, kl_beta=beta), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_reinforce_pp_baseline(seed):
    """Reward minus group mean (a lone member: 0) on every valid position, then whitened over them."""
    rewards, ids, mask, *_ = positions(seed)
    n, width = mask.shape
    usable = rewards.masked_fill(~mask.any(dim=1), math.nan)
    groups, values = members(usable, ids), usable.tolist()
    centred = {i: values[i] - mean([values[j] for j in rows]) for rows in groups.values() for i in rows}
    flat = [centred[i] for i in centred for t in range(width) if mask[i, t]]
    centre, spread = mean(flat), std(flat, 1)
    expected = [[0.0] * width for _ in range(n)]
    for i, value in centred.items():
        for t in range(width):
            if mask[i, t]:
                expected[i][t] = (value - centre) / math.sqrt(spread**2 + 1e-8)
    agree(estimate("reinforce_pp_baseline", AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask)), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_opo(seed):
    """Reward minus the length-weighted mean of the group."""
    rewards, ids, generator = batch(seed)
    lengths = torch.randint(1, 9, (len(ids),), generator=generator)
    groups, values = members(rewards, ids), rewards.tolist()
    expected = [0.0] * len(values)
    for group, rows in groups.items():
        baseline = sum(int(lengths[j]) * values[j] for j in rows) / sum(int(lengths[j]) for j in rows)
        for i in rows if len(rows) > 1 and group != EQUAL else ():
            expected[i] = values[i] - baseline
    agree(estimate("opo", AdvantageInputs(rewards=rewards, group_ids=ids, lengths=lengths)), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_gpg(seed):
    """Centred reward times (scored samples / samples whose reward is not 0)."""
    rewards, ids, _ = batch(seed, levels=3)
    groups, values = members(rewards, ids), rewards.tolist()
    scored = [value for value in values if not math.isnan(value)]
    factor = len(scored) / sum(value != 0 for value in scored)
    expected = [0.0] * len(values)
    for rows in groups.values():
        for i in rows:
            expected[i] = factor * (values[i] - mean([values[j] for j in rows])) / 2
    agree(estimate("gpg", AdvantageInputs(rewards=rewards, group_ids=ids), f_norm=2.0), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("reward_coef", [False, True])
def test_copo(seed, reward_coef):
    """Local: group z-score. Global: z-score over groups of the groups' means. Blend: sigmoid(5 (H - 1)), 0 if wrong."""
    rewards, ids, generator = batch(seed, levels=2)
    rewards[(ids == EQUAL) & ~rewards.isnan()] = 1.0
    answers = [None if x == 3 else "abc"[x] for x in torch.randint(4, (len(ids),), generator=generator).tolist()]
    groups, values = members(rewards, ids), rewards.tolist()
    local = group_zscores(values, groups)
    entropy, level = {}, {}
    for group, rows in groups.items():
        counts = {}
        for i in rows:
            key = (answers[i],) if answers[i] is not None else i  # a missing answer agrees with nobody
            counts[key] = counts.get(key, 0) + 1
        shares = [count / len(rows) for count in counts.values()]
        entropy[group] = -sum(share * math.log2(share + 1e-8) for share in shares) if len(rows) > 1 else 0.0
        lam = (1 - 1 / len(rows)) / math.log2(len(rows)) if len(rows) > 1 else 0.0
        level[group] = mean([values[i] for i in rows]) * (1 - lam * entropy[group] if reward_coef else 1)
    levels = list(level.values())
    overall, weight = [0.0] * len(values), [0.0] * len(values)
    for group, rows in groups.items():
        for i in rows:
            overall[i] = (level[group] - mean(levels)) / (std(levels, 1) + 1e-6)
            weight[i] = (values[i] == 1) / (1 + math.exp(-5 * (entropy[group] - 1)))
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, answers=answers)
    result = estimate("copo_consistency", inputs, reward_coef=reward_coef)
    agree(result, local)
    assert_close(result.aux["global_advantages"].double(), torch.tensor(overall).double(), atol=2e-6, rtol=2e-6)
    assert_close(result.aux["local_weight"].double(), torch.tensor(weight).double(), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("mu", "alpha", "beta", "prefer"), [(0.5, 1.0, 0.0, "high"), (0.3, 0.8, 0.1, "high"), (0.9, 0.6, 0.2, "low")]
)
def test_canon(seed, mu, alpha, beta, prefer):
    """Halves by the metric (floor(G/2) low ones, ties by place in the batch); inter against the other half's mean."""
    rewards, ids, generator = batch(seed)
    metric = torch.randint(6, (len(ids),), generator=generator).double()
    groups, values = members(rewards, ids), rewards.tolist()
    expected = [0.0] * len(values)
    for group, rows in groups.items():
        if len(rows) < 2 or group == EQUAL:
            continue
        if len({float(metric[i]) for i in rows}) == 1:  # no halves: the plain centred reward
            for i in rows:
                expected[i] = values[i] - mean([values[j] for j in rows])
            continue
        order = sorted(rows, key=lambda i: (float(metric[i]), i))
        low, high = order[: len(order) // 2], order[len(order) // 2 :]
        m_low, m_high = mean([values[i] for i in low]), mean([values[i] for i in high])
        for i in high:
            inter = values[i] - alpha * m_low + beta if prefer == "high" else alpha * values[i] - m_low + beta
            expected[i] = mu * inter + (1 - mu) * (values[i] - m_high)
        for i in low:
            inter = alpha * values[i] - m_high - beta if prefer == "high" else values[i] - alpha * m_high - beta
            expected[i] = mu * inter + (1 - mu) * (values[i] - m_low)
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, metric=metric)
    agree(estimate("canon", inputs, mu=mu, alpha=alpha, beta=beta, prefer=prefer), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_drpo(seed):
    """+omega / B for correct samples, -softmax(s / tau) / B for wrong ones, in groups that have both; B counts all."""
    rewards, ids, mask, logprobs, _ = positions(seed)
    rewards = (rewards > 0.4).double().masked_fill(rewards.isnan(), math.nan)
    groups, lengths = members(rewards, ids), mask.sum(dim=1).tolist()
    expected = [0.0] * len(ids)
    for rows in groups.values():
        rows = [i for i in rows if lengths[i]]
        right, wrong = [i for i in rows if rewards[i] == 1], [i for i in rows if rewards[i] != 1]
        if not right or not wrong:
            continue
        s = {i: mean([float(logprobs[i, t]) for t in range(mask.shape[1]) if mask[i, t]]) for i in rows}
        short = {i: math.exp((1 - lengths[i] / 20) / 0.1) for i in right}
        heavy = {i: math.exp(s[i] / 0.5) for i in wrong}
        for i in right:
            expected[i] = short[i] / sum(short.values()) / len(groups)
        for i in wrong:
            expected[i] = -heavy[i] / sum(heavy.values()) / len(groups)
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, logprobs=logprobs)
    agree(estimate("drpo_decoupled", inputs, tau=0.5, lam=0.1, max_length=20), expected)


def test_verl_effective_rank():
    """Four steps; running means start at the first batch's and are used before this batch enters them."""
    running, state = None, None
    for seed in range(4):
        rewards, ids, generator = batch(seed)
        features = torch.rand(len(ids), 3, generator=generator).double() + 0.1
        groups, values = members(rewards, ids), rewards.tolist()
        base = group_zscores(values, groups)
        scored = sorted(i for rows in groups.values() for i in rows)
        batch_means = [mean([float(features[i, k]) for i in scored]) for k in range(3)]
        compared = batch_means if running is None else running
        expected = [0.0] * len(values)
        for i in scored:
            d = [(float(features[i, k]) - compared[k]) / (abs(compared[k]) + 1e-8) for k in range(3)]
            rank, velocity, acceleration = (max(-5.0, min(5.0, x)) for x in d)
            w = 1 / (1 + math.exp(-2 * acceleration))
            phi = w * math.tanh(rank) + (1 - w) * math.tanh(velocity)
            expected[i] = base[i] + min(max(phi, 0.0), abs(base[i]) / 2)
        inputs = AdvantageInputs(rewards=rewards, group_ids=ids, rank_features=features)
        result = estimate("verl_effective_rank", inputs, state=state)
        agree(result, expected)
        state = result.state
        running = (
            batch_means
            if running is None
            else [0.7 * old + 0.3 * new for old, new in zip(running, batch_means, strict=True)]
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_ngrpo(seed):
    """Two virtual samples of the best reward in every group; equal groups below it are pushed down, not zero."""
    rewards, ids, _ = batch(seed)
    groups, values = members(rewards, ids), rewards.tolist()
    expected = [0.0] * len(values)
    for rows in groups.values():
        extended = [values[i] for i in rows] + [1.0, 1.0]
        for i in rows if min(extended) < 1 else ():
            expected[i] = (values[i] - mean(extended)) / (std(extended, 1) + 1e-6)
    agree(estimate("ngrpo", AdvantageInputs(rewards=rewards, group_ids=ids), virtual=2), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_bnpo(seed):
    """Beta parameters by the method of moments from the success rates of all groups of two or more."""
    rewards, ids, _ = batch(seed)
    groups, values = members(rewards, ids), rewards.tolist()
    rates = {group: mean([values[i] for i in rows]) for group, rows in groups.items() if len(rows) > 1}
    mu, v = mean(list(rates.values())), std(list(rates.values()), 1) ** 2
    c = mu * (1 - mu) / v - 1
    alpha, beta = max(1.0, 1 + c * mu / 3), max(1.0, 1 + c * (1 - mu) / 3)
    expected = [0.0] * len(values)
    for group, p in rates.items():
        own = [values[i] for i in groups[group]]
        if max(own) == min(own):
            continue
        log_beta = math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
        weight = math.exp(log_beta - (alpha - 1) * math.log(p) - (beta - 1) * math.log(1 - p))
        for i in groups[group]:
            expected[i] = min(weight, 1e6) * (values[i] - p)
    agree(estimate("bnpo", AdvantageInputs(rewards=rewards, group_ids=ids)), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ucas(seed, reduction):
    """Certainty damps good samples and sharpens bad ones; then every token loses its scaled logit, at least to 0.

    The base compares rewards, an empty answer's too; certainty is compared where there are tokens. A lone member keeps
    what the base gave it.
    """
    rewards, ids, mask, certainty, logits = positions(seed)
    width, base = mask.shape[1], group_zscores(rewards.tolist(), members(rewards, ids))
    values = rewards.masked_fill(~mask.any(dim=1), math.nan).tolist()
    groups, sure = members(torch.tensor(values), ids), [0.0] * len(values)
    scored = sorted(i for rows in groups.values() for i in rows)
    alone = {rows[0] for rows in groups.values() if len(rows) == 1}
    for i in scored:
        own = [float(certainty[i, t]) for t in range(width) if mask[i, t]]
        sure[i] = mean(own) if reduction == "mean" else sum(own)
    sure = group_zscores(sure, groups)
    valid = [float(logits[i, t]) for i in scored for t in range(width) if mask[i, t]]
    low, high = min(valid), max(valid)
    expected = [[0.0] * width for _ in values]
    for i in scored:
        shaped = base[i] * math.exp(-0.25 * sure[i] if base[i] > 0 else 0.35 * sure[i])
        for t in range(width):
            if mask[i, t] and i in alone:
                expected[i][t] = base[i]
            elif mask[i, t]:
                token = shaped - 0.05 * (float(logits[i, t]) - low) / (high - low + 1e-6)
                expected[i][t] = max(token, 0.0) if shaped > 0 else token
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, mask=mask, self_certainty=certainty, token_logits=logits)
    agree(estimate("ucas", inputs, reduction=reduction), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_aspo(seed):
    """Correct samples that call a tool are shifted by -2 (p - mean p) / mean length, at most 0.7 |A|."""
    rewards, ids, generator = batch(seed, levels=2)
    lengths = torch.randint(5, 12, (len(ids),), generator=generator)
    first = torch.randint(-1, 5, (len(ids),), generator=generator)
    groups, values = members(rewards, ids), rewards.tolist()
    expected = group_zscores(values, groups)
    for rows in groups.values():
        chosen = [i for i in rows if values[i] == 1 and first[i] >= 0]
        for i in chosen:
            centre, length = mean([int(first[j]) for j in chosen]), mean([int(lengths[j]) for j in chosen])
            shift = -2.0 * (int(first[i]) - centre) / length
            bound = 0.7 * abs(expected[i])
            expected[i] += max(-bound, min(bound, shift))
    inputs = AdvantageInputs(rewards=rewards, group_ids=ids, lengths=lengths, first_tool_pos=first)
    agree(estimate("aspo_tool", inputs), expected)
