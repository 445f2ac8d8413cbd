"""What must hold for every estimator that compares samples within groups. A new one joins by being registered."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.advantages import AdvantageInputs, available, estimate
from align.advantages.registry import find, make_options

VARIANTS = [
    *[(kind, {}) for kind in available()],
    ("grpo", {"scale": "batch"}),
    ("grpo", {"scale": "none"}),
    ("grpo", {"unbiased": False, "eps": 1e-6, "eps_mode": "floor"}),
    ("flow_grpo", {"global_std": False}),
]
SCALED = [("rloo", {}), ("dr_grpo", {}), ("grpo", {"scale": "none"})]
STANDARDISED = [("grpo", {"eps": 0.0}), ("flow_grpo", {"eps": 0.0}), ("flow_grpo", {"eps": 0.0, "global_std": False})]
every = pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)


def advantages(kind, rewards, ids, **options):
    return estimate(kind, AdvantageInputs(rewards=rewards, group_ids=ids), **options).advantages


@st.composite
def batches(draw, smallest=2, largest=5):
    """Rewards with ties, interleaved ids with gaps."""
    counts = draw(st.lists(st.integers(smallest, largest), min_size=1, max_size=5))
    ids = torch.tensor([97 * number - 100 for number, count in enumerate(counts) for _ in range(count)])
    rewards = torch.tensor(draw(st.lists(st.integers(-8, 8), min_size=len(ids), max_size=len(ids)))) / 4
    order = torch.tensor(draw(st.permutations(range(len(ids)))))
    return rewards[order], ids[order]


@every
@given(batch=batches(), data=st.data())
def test_permuting_samples_permutes_advantages(kind, options, batch, data):
    rewards, ids = batch
    order = torch.tensor(data.draw(st.permutations(range(len(ids)))))
    assert_close(
        advantages(kind, rewards[order], ids[order], **options), advantages(kind, rewards, ids, **options)[order]
    )


@every
@given(batch=batches())
def test_names_of_groups_do_not_matter(kind, options, batch):
    rewards, ids = batch
    assert torch.equal(
        advantages(kind, rewards, 3 - 10**12 * ids, **options), advantages(kind, rewards, ids, **options)
    )


@every
@given(batch=batches(), shift=st.integers(-64, 64))
def test_a_shift_of_all_rewards_changes_nothing(kind, options, batch, shift):
    rewards, ids = batch
    assert_close(advantages(kind, rewards + shift, ids, **options), advantages(kind, rewards, ids, **options))


@pytest.mark.parametrize(("kind", "options"), SCALED, ids=str)
@given(batch=batches(), scale=st.sampled_from([0.125, 3.0, 8.0]))
def test_centred_advantages_follow_the_unit_of_the_rewards(kind, options, batch, scale):
    rewards, ids = batch
    assert_close(advantages(kind, scale * rewards, ids, **options), scale * advantages(kind, rewards, ids, **options))


@pytest.mark.parametrize(("kind", "options"), STANDARDISED, ids=str)
@given(batch=batches(), scale=st.sampled_from([0.125, 3.0, 8.0]))
def test_standardised_advantages_have_no_unit(kind, options, batch, scale):
    rewards, ids = batch
    assert_close(advantages(kind, scale * rewards, ids, **options), advantages(kind, rewards, ids, **options))


@every
@given(batch=batches())
def test_sums_within_groups_are_zero(kind, options, batch):
    rewards, ids = batch
    result = advantages(kind, rewards, ids, **options).double()
    for number in ids.unique():
        assert float(result[ids == number].sum()) == pytest.approx(0.0, abs=1e-5)  # float32 numbers up to 1e1


@every
@given(batch=batches(), data=st.data())
def test_a_group_depends_on_itself_alone_where_it_says_so(kind, options, batch, data):
    entry = find(kind)
    rewards, ids = batch
    changed = data.draw(st.sampled_from(ids.unique().tolist()))
    other = torch.where(ids == changed, 10 * rewards + torch.arange(len(ids)), rewards)
    same = torch.equal(
        advantages(kind, rewards, ids, **options)[ids != changed],
        advantages(kind, other, ids, **options)[ids != changed],
    )
    assert same or entry.scope_of(make_options(entry, options)) == "batch"


@every
@pytest.mark.parametrize(("reward", "size"), [(0.98, 15), (98.3, 15), (0.7, 24), (1e-30, 5), (1e30, 3), (0.0, 2)])
def test_equal_rewards_give_exactly_zero(kind, options, reward, size):
    """Beside a group with a spread, so that the batch has one, too."""
    rewards = torch.tensor([reward] * size + [0.0, 1.0])
    result = advantages(kind, rewards, torch.tensor([0] * size + [1, 1]), **options)
    assert (result[:size] == 0).all()
    assert result[size] < 0 < result[size + 1]


@every
@given(batch=batches(smallest=3), data=st.data())
def test_a_sample_without_score_is_as_if_it_were_not_there(kind, options, batch, data):
    rewards, ids = batch
    gone = data.draw(st.integers(0, len(ids) - 1))
    kept = torch.arange(len(ids)) != gone
    with_nan = rewards.clone()
    with_nan[gone] = math.nan
    result = advantages(kind, with_nan, ids, **options)
    assert result[gone] == 0
    assert torch.equal(result[kept], advantages(kind, rewards[kept], ids[kept], **options))


@every
@pytest.mark.parametrize(
    ("rewards", "ids"),
    [
        ([1.0], [0]),
        ([1.0, 2.0], [0, 1]),
        ([math.nan], [0]),
        ([math.nan, math.nan, 1.0], [0, 0, 0]),
        ([1e30, -1e30], [0, 0]),
        ([1e-30, 2e-30], [0, 0]),
        ([1e-45, 0.0], [0, 0]),
        ([], []),
    ],
)
def test_degenerate_batches_give_finite_numbers(kind, options, rewards, ids):
    result = advantages(kind, torch.tensor(rewards), torch.tensor(ids, dtype=torch.int64), **options)
    assert result.shape == (len(ids),)
    assert result.isfinite().all()


@every
@given(batch=batches(), world=st.integers(1, 4), data=st.data())
def test_any_split_over_processes_gives_the_same_numbers(kind, options, batch, world, data):
    """Rows of process 0, then of process 1, ...; sorted by row number they are the batch of one process."""
    rewards, ids = batch
    owner = torch.tensor(data.draw(st.lists(st.integers(0, world - 1), min_size=len(ids), max_size=len(ids))))
    gathered = torch.cat([torch.nonzero(owner == rank).flatten() for rank in range(world)])
    order = gathered.argsort()
    result = advantages(kind, rewards[gathered][order], ids[gathered][order], **options)
    assert torch.equal(result, advantages(kind, rewards, ids, **options))


@given(batch=batches(smallest=4, largest=4))
def test_rloo_is_a_multiple_of_dr_grpo(batch):
    assert_close(advantages("rloo", *batch), 4 / 3 * advantages("dr_grpo", *batch))
