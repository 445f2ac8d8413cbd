"""What must hold for every estimator, walked over all that are registered: a new one joins by being registered.

The second half is for those that compare samples within groups, by their unit and their sums.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, available, estimate
from align.advantages.registry import find, make_options

from .rollouts import TABLE, interleaved, rollouts

VARIANTS = [
    *[(kind, {}) for kind in available()],
    ("grpo", {"scale": "batch"}),
    ("grpo", {"scale": "none"}),
    ("grpo", {"unbiased": False, "eps": 1e-6, "eps_mode": "floor"}),
    ("grpo", {"leave_one_out_std": True}),
    ("flow_grpo", {"global_std": False}),
    ("pass_at_k", {"standardise": True}),
    ("canon", {"schedule": "accuracy", "alpha": 0.8, "beta": 0.1}),
    ("copo_consistency", {"mode": "only-soft", "reward_coef": True}),
    ("verl_effective_rank", {"where": "last"}),
    ("ucas", {"reduction": "sum", "skip_zero_groups": True}),
]
SEEDS = range(2)
every = pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
BY_GROUP = [v for v in VARIANTS if find(v[0]).scope_of(make_options(find(v[0]), v[1])) == "group"]
BOUNDED = ("bnpo", "ngrpo")  # rewards in a known range


def compute(kind, options, rewards, ids, rows=None, **fields):
    return estimate(kind, rollouts(rewards, ids, rows, **fields), **options).advantages


@every
def test_permuting_samples_permutes_advantages(kind, options):
    for seed in SEEDS:
        rewards, ids = interleaved(seed)
        order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
        permuted = compute(kind, options, rewards[order], ids[order], order)
        assert_close(permuted, compute(kind, options, rewards, ids)[order])


@every
def test_names_of_groups_do_not_matter(kind, options):
    for seed in SEEDS:
        rewards, ids = interleaved(seed)
        assert_close(
            compute(kind, options, rewards, 3 - 10**12 * ids),
            compute(kind, options, rewards, ids),
            rtol=1e-6,
            atol=1e-7,
        )


@pytest.mark.parametrize(("kind", "options"), BY_GROUP, ids=str)
def test_a_group_depends_on_itself_alone_where_it_says_so(kind, options):
    for seed in SEEDS:
        rewards, ids = interleaved(seed)
        other = torch.where(ids == ids[0], 1 - rewards**2, rewards)
        before, after = (compute(kind, options, values, ids) for values in (rewards, other))
        assert torch.equal(before[ids != ids[0]], after[ids != ids[0]])


@pytest.mark.parametrize(("kind", "options"), [v for v in VARIANTS if find(v[0]).exact_zero], ids=str)
def test_equal_rewards_give_exactly_zero(kind, options):
    """Beside a group with a spread, so that the batch has one, too. Others say in their docstring what they do."""
    for reward, size in ((0.98, 15), (98.3, 15), (0.7, 24), (1e-30, 5), (1e30, 3), (0.0, 2)):
        rewards = torch.tensor([reward] * size + [0.0, 1.0])
        ids = torch.tensor([0] * size + [1, 1])
        bounds = {"hi": float(rewards.max())} if kind == "bnpo" else {}
        assert (compute(kind, {**options, **bounds}, rewards, ids)[:size] == 0).all()


@every
def test_a_sample_without_score_is_as_if_it_were_not_there(kind, options):
    for seed in SEEDS:
        rewards, ids = interleaved(seed, smallest=3)
        gone = seed + 1
        kept = torch.arange(len(ids)) != gone
        with_nan = rewards.clone()
        with_nan[gone] = math.nan
        result = compute(kind, options, with_nan, ids)
        assert (result[gone] == 0).all()
        assert_close(
            result[kept], compute(kind, options, rewards[kept], ids[kept], kept.nonzero().flatten()), rtol=0, atol=0
        )


DEGENERATE = [
    ([1.0], [0]),
    ([1.0, 0.5], [0, 1]),
    ([1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1]),
    ([0.5, 0.5, 0.5], [0, 0, 0]),
    ([0.0, 0.0], [0, 0]),
    ([math.nan], [0]),
    ([math.nan, math.nan, 1.0], [0, 0, 0]),
    ([1e30, -1e30], [0, 0]),
    ([1e-30, 2e-30], [0, 0]),
    ([1e-45, 0.0], [0, 0]),
]


@every
def test_degenerate_batches_give_finite_numbers(kind, options):
    for numbers, ids in DEGENERATE:
        rewards = torch.tensor(numbers)
        if kind in BOUNDED and (rewards.abs() > 1).any():
            continue  # out of the scorer's range is an error
        result = compute(kind, options, rewards, torch.tensor(ids, dtype=torch.int64))
        assert result.shape[0] == len(ids)
        assert result.isfinite().all()
        assert result.dtype == torch.float32


@every
def test_rows_without_a_trained_position_get_nothing_and_break_nothing(kind, options):
    rewards, ids = interleaved(1, smallest=3)
    mask = TABLE["mask"][: len(ids)].clone()
    mask[2] = False
    result = compute(kind, options, rewards, ids, mask=mask)
    assert result.isfinite().all()
    assert (result[2] == 0).all()
    if result.ndim == 2:
        assert (result[~mask] == 0).all()


@every
def test_any_split_over_processes_gives_the_same_numbers(kind, options):
    """Rows of process 0, then of process 1, ...; sorted by row number they are the batch of one process."""
    rewards, ids = interleaved(2)
    owner = torch.arange(len(ids)) * 7 % 3
    gathered = torch.cat([(owner == rank).nonzero().flatten() for rank in range(3)])
    rows = gathered[gathered.argsort()]
    result = compute(kind, options, rewards[gathered][gathered.argsort()], ids[rows], rows)
    assert torch.equal(result, compute(kind, options, rewards, ids))


@every
def test_float32_inputs_agree_with_float64(kind, options):
    """Rewards and all else are float32 numbers; told in float64 they are the same numbers."""
    rewards, ids = interleaved(3)
    single = rollouts(rewards, ids)
    double = estimate(kind, single.exact(), **options).advantages
    assert_close(estimate(kind, single, **options).advantages, double, rtol=1e-6, atol=1e-6)


@every
def test_inputs_are_left_alone_and_no_gradient_flows(kind, options):
    rewards, ids = interleaved(0)
    inputs = rollouts(rewards.clone().requires_grad_(), ids)
    before = {name: getattr(inputs, name).clone() for name in TABLE if getattr(inputs, name, None) is not None}
    assert not estimate(kind, inputs, **options).advantages.requires_grad
    assert all(torch.equal(getattr(inputs, name), values) for name, values in before.items())


@pytest.mark.parametrize("kind", available())
def test_a_missing_field_is_an_error_that_names_it(kind):
    entry = find(kind)
    options = make_options(entry, {})
    for name in entry.needs(options):
        if name in ("advantages", "lengths", "prompt_ids"):
            continue  # computed by the base, counted from the mask, taken from the groups
        rewards, ids = interleaved(0)
        inputs = rollouts(rewards, ids, **({} if name == "group_ids" else {name: None}))
        if name == "group_ids":
            inputs = rollouts(rewards, None)
        with pytest.raises(ValueError, match=rf"needs .*`{name}`.*Given: rewards"):
            estimate(kind, inputs)


# --- those that compare samples within groups ---------------------------------------------------------------------

CENTRED = [
    ("grpo", {}),
    ("grpo", {"scale": "batch"}),
    ("grpo", {"scale": "none"}),
    ("grpo", {"unbiased": False, "eps": 1e-6, "eps_mode": "floor"}),
    ("dr_grpo", {}),
    ("rloo", {}),
    ("flow_grpo", {}),
    ("flow_grpo", {"global_std": False}),
    ("gpg", {}),
    ("bnpo", {}),
]
SHIFTABLE = [
    *[variant for variant in CENTRED if variant[0] not in ("gpg", "bnpo")],
    ("grpo", {"leave_one_out_std": True}),
    ("opo", {}),
    ("hapo_token_group", {}),
    ("canon", {}),
    ("pass_at_k", {}),
    ("reinforce_pp_baseline", {}),
    ("ucas", {}),
    ("copo_consistency", {}),
]
SCALED = [("rloo", {}), ("dr_grpo", {}), ("grpo", {"scale": "none"}), ("opo", {}), ("canon", {}), ("pass_at_k", {})]
STANDARDISED = [("grpo", {"eps": 0.0}), ("flow_grpo", {"eps": 0.0}), ("flow_grpo", {"eps": 0.0, "global_std": False})]


few = settings(max_examples=8)


@st.composite
def batches(draw, smallest=2, largest=5):
    """Rewards with ties, interleaved ids with gaps."""
    counts = draw(st.lists(st.integers(smallest, largest), min_size=1, max_size=5))
    ids = torch.tensor([97 * number - 100 for number, count in enumerate(counts) for _ in range(count)])
    rewards = torch.tensor(draw(st.lists(st.integers(0, 8), min_size=len(ids), max_size=len(ids)))) / 8
    order = torch.tensor(draw(st.permutations(range(len(ids)))))
    return rewards[order], ids[order]


@pytest.mark.parametrize(("kind", "options"), SHIFTABLE, ids=str)
@few
@given(batch=batches(), shift=st.integers(-64, 64))
def test_a_shift_of_all_rewards_changes_nothing(kind, options, batch, shift):
    rewards, ids = batch
    assert_close(
        compute(kind, options, rewards + shift, ids), compute(kind, options, rewards, ids), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("kind", "options"), SCALED, ids=str)
@few
@given(batch=batches(), scale=st.sampled_from([0.125, 3.0, 8.0]))
def test_centred_advantages_follow_the_unit_of_the_rewards(kind, options, batch, scale):
    rewards, ids = batch
    assert_close(compute(kind, options, scale * rewards, ids), scale * compute(kind, options, rewards, ids))


@pytest.mark.parametrize(("kind", "options"), STANDARDISED, ids=str)
@few
@given(batch=batches(), scale=st.sampled_from([0.125, 3.0, 8.0]))
def test_standardised_advantages_have_no_unit(kind, options, batch, scale):
    rewards, ids = batch
    assert_close(compute(kind, options, scale * rewards, ids), compute(kind, options, rewards, ids))


@pytest.mark.parametrize(("kind", "options"), CENTRED, ids=str)
@few
@given(batch=batches())
def test_sums_within_groups_are_zero(kind, options, batch):
    rewards, ids = batch
    result = compute(kind, options, rewards, ids).double()
    for number in ids.unique():
        assert float(result[ids == number].sum()) == pytest.approx(0.0, abs=1e-5)  # float32 numbers up to 1e1


@given(batch=batches(smallest=4, largest=4))
def test_rloo_is_a_multiple_of_dr_grpo(batch):
    assert_close(compute("rloo", {}, *batch), 4 / 3 * compute("dr_grpo", {}, *batch))


def test_a_spread_group_beside_an_equal_one_keeps_its_signs():
    """Zeros come from equal rewards, not from everything being set to 0."""
    for kind in ("grpo", "dr_grpo", "rloo", "flow_grpo", "opo", "gpg", "bnpo"):
        result = compute(kind, {}, torch.tensor([0.5, 0.5, 0.0, 1.0]), torch.tensor([0, 0, 1, 1]))
        assert result[2] < 0 < result[3]


@pytest.mark.parametrize("singleton", ["zero", "raw"])
def test_a_singleton_gets_zero_or_its_reward(singleton):
    inputs = AdvantageInputs(
        rewards=torch.tensor([4.0, 1.0, 2.0]), group_ids=torch.tensor([8, 3, 3]), lengths=torch.tensor([2, 2, 2])
    )
    for kind in ("opo", "gpg", "pass_at_k", "hapo_token_group"):
        assert estimate(kind, inputs, singleton=singleton).advantages[0] == (4.0 if singleton == "raw" else 0.0)
