"""What must hold for every estimator over positions, in every form: padding, holes, order, two processes.

The rules for all estimators are tested in `test_properties.py`; this walks over the options of those that give credit.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from align.advantages import AdvantageInputs, available, estimate
from align.advantages.inputs import POSITION_FIELDS
from align.advantages.registry import find

from ..rollouts import interleaved, rollouts

KINDS = [kind for kind in available() if ".credit." in find(kind).function.__module__]
POSITIONAL = [kind for kind in KINDS if find(kind).granularity == "token"]
VARIANTS = [
    *[(kind, {}) for kind in POSITIONAL],
    ("gae", {"whiten": True, "gamma": 0.9, "lam_value": 1.0}),
    ("gae", {"length_alpha": 0.5}),
    ("egae", {"bootstrap": "given", "gamma": 0.9}),
    *[("returns", {"discount": clock, "gamma": 0.7}) for clock in ("per_turn", "reset")],
    *[("pure_min", {"release": name}) for name in ("main_token", "main_step", "verl")],
    ("pure_min", {"form": "exact", "max_length": 9}),
    ("salt", {"trajectory": "rloo", "counting": "trajectory", "history": 1}),
    ("salt", {"history": None}),
    ("spo_chain", {"interval": 2, "rho": 0.7, "whiten": True}),
    ("spo_chain", {"probability_mask": False}),
    ("spo_tree", {"scale": "std", "loo": True}),
    ("tempo", {"loo": True, "unbiased": False}),
    ("igpo", {"form": "prob", "pools": "joint", "gamma": 0.5}),
    ("igpo", {"release": True}),
    ("mars_turn", {"release": True}),
    ("gigpo", {"scale": "none", "omega": 0.5}),
    ("branch_grpo", {"node_value": "logprob"}),
    ("tree_grpo", {"node_value": "children"}),
    ("novelty_bonus", {"coefficient": 0.5}),
    ("stepwise_gain", {"pools": "joint", "unbiased": False}),
]
every = pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
DEPENDS_ON_PADDING = {("igpo", "release"), ("mars_turn", "release"), ("returns", "discount")}  # as their releases do


def compute(kind, options, inputs):
    return estimate(kind, inputs, **options)


def padded(inputs, columns=2):
    """The same rollouts with more padding on the right, filled with what must not matter."""
    wider = {}
    for name in POSITION_FIELDS:
        value = getattr(inputs, name)
        if value is not None:
            filler = {torch.float32: math.nan, torch.bool: True}.get(value.dtype, 77)
            filler = False if name in ("mask", "policy_window_mask") else filler
            more = torch.full((len(value), columns), filler, dtype=value.dtype)
            wider[name] = torch.cat([value, more], dim=1)
    wider["done_reward_seq"] = torch.nn.functional.pad(inputs.done_reward_seq, (0, columns), value=77.0)
    return AdvantageInputs(**{name: getattr(inputs, name) for name in inputs.given()} | wider)


def test_all_of_the_room_are_here():
    assert set(KINDS) == {
        *("gae", "egae", "returns", "pure_min", "salt", "spo_chain", "spo_tree", "tempo", "igpo", "mars_turn"),
        *("m_grpo", "gigpo", "branch_grpo", "tree_grpo", "reference_gain", "probability_mask", "novelty_bonus"),
        "stepwise_gain",
    }


@every
def test_permuted_rollouts_give_permuted_credit(kind, options):
    rewards, ids = interleaved(1)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(5))
    found = compute(kind, options, rollouts(rewards[order], ids[order], order))
    expected = compute(kind, options, rollouts(rewards, ids))
    assert_close(found.advantages, expected.advantages[order], rtol=1e-5, atol=1e-6)
    for name, value in expected.aux.items():
        assert_close(found.aux[name], value[order], rtol=1e-9, atol=1e-9)


@every
def test_garbage_at_masked_positions_has_no_effect(kind, options):
    """NaN and huge numbers; ids of tokens inside a rollout are part of the prefix and stay."""
    rewards, ids = interleaved(2)
    clean = rollouts(rewards, ids)
    mask = clean.mask
    numbers = ("token_rewards", "logprobs", "values")
    fields = {name: torch.where(mask, getattr(clean, name), math.nan) for name in numbers}
    fields["turn_id"] = torch.where(mask, clean.turn_id, -99)
    fields["step_end"] = clean.step_end | ~mask
    dirty = rollouts(rewards, ids, **fields)
    found, expected = (compute(kind, options, inputs).advantages for inputs in (dirty, clean))
    assert torch.equal(found, expected)
    assert (found[~mask] == 0).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, options) for kind, options in VARIANTS if not {(kind, name) for name in options} & DEPENDS_ON_PADDING],
    ids=str,
)
def test_more_padding_changes_nothing(kind, options):
    rewards, ids = interleaved(3)
    inputs = rollouts(rewards, ids)
    found, expected = (compute(kind, options, given).advantages for given in (padded(inputs), inputs))
    assert_close(found[:, : expected.shape[1]], expected, rtol=1e-6, atol=1e-7)
    assert (found[:, expected.shape[1] :] == 0).all()


@every
def test_one_position_and_one_rollout(kind, options):
    """T = 1, a group of one, a group of equal rollouts: finite, and a lone rollout of a group method gets 0."""
    rewards, ids = torch.tensor([1.0, 0.0, 0.5, 0.25, 0.25]), torch.tensor([3, 3, 3, 8, 9])
    whole = rollouts(rewards, ids)
    fields = {name: getattr(whole, name)[:, :1] for name in POSITION_FIELDS if getattr(whole, name) is not None}
    found = compute(kind, options, rollouts(rewards, ids, **fields)).advantages
    assert found.shape == (5, 1)
    assert found.isfinite().all()
    if find(kind).min_group == 2:
        assert (found[3:] == 0).all()


@every
def test_rewards_in_half_precision_are_raised_before_any_statistic(kind, options):
    rewards, ids = interleaved(4)
    half = compute(kind, options, rollouts(rewards.half(), ids)).advantages  # eighths are exact in half precision
    assert torch.equal(half, compute(kind, options, rollouts(rewards, ids)).advantages)


@every
def test_two_processes_equal_one(kind, options):
    """Rows gathered rank by rank and sorted by row number; then each process keeps its own rows."""
    rewards, ids = interleaved(5)
    rows = torch.arange(len(ids))
    ranks = [rows[rows % 2 == rank] for rank in range(2)]
    gathered = torch.cat(ranks)
    order = gathered.argsort()
    whole = compute(kind, options, rollouts(rewards[gathered][order], ids[gathered][order], gathered[order])).advantages
    single = compute(kind, options, rollouts(rewards, ids)).advantages
    for own in ranks:
        assert torch.equal(whole[own], single[own])


def test_a_rank_local_shard_is_something_else():
    """Why rows must be gathered first: half of the groups' members give other numbers."""
    rewards, ids = torch.tensor([1.0, 0.0, 0.5, 0.25]), torch.tensor([0, 0, 0, 0])
    own = torch.tensor([0, 2])
    for kind in ("tempo", "salt", "spo_tree", "gigpo", "pure_min", "branch_grpo"):
        shard = compute(kind, {}, rollouts(rewards[own], ids[own], own)).advantages
        assert not torch.allclose(shard, compute(kind, {}, rollouts(rewards, ids)).advantages[own])


@pytest.mark.parametrize("kind", POSITIONAL)
def test_a_mask_without_a_trained_position_is_an_error(kind):
    rewards, ids = interleaved(0)
    empty = torch.zeros(len(ids), 6, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"no position that is trained in any of {len(ids)} samples"):
        compute(kind, {}, rollouts(rewards, ids, mask=empty))


@pytest.mark.parametrize("name", ["token_ids", "state_key", "turn_id", "agent"])
def test_identities_are_integers(name):
    with pytest.raises(ValueError, match=rf"`{name}` must be integers, found torch.float32"):
        AdvantageInputs(rewards=torch.zeros(1), **{name: torch.zeros(1, 1)})


@pytest.mark.parametrize("kind", POSITIONAL)
def test_widths_that_disagree_are_an_error(kind):
    rewards, ids = interleaved(0)
    inputs = rollouts(rewards, ids)
    with pytest.raises(ValueError, match=r"disagree on the number of positions: `mask` \[5\], .*`logprobs` \[6\]"):
        compute(kind, {}, rollouts(rewards, ids, mask=inputs.mask[:, :5]))
