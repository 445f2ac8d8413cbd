"""Counts: samples, slices, updates, network evaluations."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.config.shared import TrainingConfig
from diffusion.arithmetic import (
    batches,
    evaluations_of,
    process_slice,
    rollout_passes,
    rows_per_update,
    strips_of,
    times_with_interval,
    training_passes,
)
from diffusion.config import (
    AwmConfig,
    DiffusionDpoConfig,
    DiffusionRun,
    DiscreteTimes,
    EvaluationConfig,
    ImagesConfig,
    LaggedPolicyConfig,
    NftConfig,
    NoiseScheduleTimes,
    OnlineDpoConfig,
    PairsConfig,
    PromptsConfig,
    RolloutConfig,
    RwrConfig,
    SftBestConfig,
    SftConfig,
)
from diffusion.needs import lagged_copies, network_rows, reads_reference, rows_per_step


@given(st.integers(0, 300), st.integers(1, 40))
def test_slices_cover_every_row_once_and_differ_by_at_most_one(rows, world):
    slices = [process_slice(rows, rank, world) for rank in range(world)]
    assert [row for start, end in slices for row in range(start, end)] == list(range(rows))
    sizes = [end - start for start, end in slices]
    assert max(sizes) - min(sizes) <= 1


def test_rows_per_update_by_hand():
    """8 prompts x 8 = 64 pictures in 2 updates of 32; three processes take 10, 11, 11 of them."""
    run = DiffusionRun(
        rollout=RolloutConfig(prompts_per_step=8, group_size=8), training=TrainingConfig(updates_per_rollout=2)
    )
    assert rows_per_update(run, 3) == (10, 11)
    assert rows_per_update(run, 4) == (8, 8)


@given(st.integers(1, 200), st.integers(0, 60))
def test_times_with_interval_counts_what_the_loop_does(steps, every):
    """The engine evaluates at step 0, at every multiple and at the last step."""
    done = [step for step in range(steps + 1) if step in (0, steps) or (every and step % every == 0)]
    assert times_with_interval(steps, every) == len(done)


def test_evaluations_and_strips():
    run = DiffusionRun(training=TrainingConfig(steps=40), evaluation=EvaluationConfig(every=0, strip_every=10))
    assert (evaluations_of(run), strips_of(run)) == (2, 5)
    assert strips_of(replace(run, evaluation=EvaluationConfig(strip_every=0))) == 0
    without = replace(run, prompts=PromptsConfig(heldout=None))
    assert (evaluations_of(without), strips_of(without)) == (0, 0)


def test_batches():
    assert [batches(rows, 8) for rows in (1, 8, 9, 16)] == [1, 1, 2, 2]


def total(algorithm, rollout=None, updates=1):
    rollout = rollout or RolloutConfig()
    parts = [rollout_passes(rollout), *training_passes(algorithm, rollout, TrainingConfig(updates_per_rollout=updates))]
    return sum((part.count for part in parts), Fraction())


def test_published_cost_of_awm():
    """Released AWM: 14 rollout + 6 x 3 training + 6 base + 6 lagged = 44 network evaluations for one picture."""
    assert total(AwmConfig()) == 44


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (AwmConfig(kl_beta=0.0), 38),  # no pass of the base model
        (AwmConfig(lagged=None), 38),
        (AwmConfig(lagged=LaggedPolicyConfig(kl_beta=0.0)), 38),
        (AwmConfig(kl_beta=0.0, lagged=None), 32),  # 14 + 18
        (AwmConfig(times=DiscreteTimes(draws=4)), 34),  # 14 + 12 + 4 + 4
        (AwmConfig(off_policy=True), 50),  # and 6 for the likelihood under the lagged policy
    ],
)
def test_cost_by_hand(algorithm, expected):
    assert total(algorithm) == expected


def test_cost_of_later_updates_and_of_guidance():
    """Two updates: half of the pictures need an old likelihood, 6 / 2 = 3. Guidance doubles every network call."""
    assert total(AwmConfig(), updates=2) == 47
    assert total(AwmConfig(), RolloutConfig(guidance_scale=4.5)) == 88


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (NftConfig(), 60),  # 10 rollout + 10 x (3 + old 1 + base 1)
        (NftConfig(kl_beta=0.0), 50),
        (OnlineDpoConfig(), 11),  # 2 of 8 pictures x 1 time x (3 + base 1)
        (RwrConfig(), 28),  # 6 x 3
        (RwrConfig(kl_beta=0.1), 34),
        (SftBestConfig(times=DiscreteTimes(draws=8)), 13),  # 1 of 8 pictures x 8 times x 3
    ],
)
def test_cost_of_methods_on_final_pictures_by_hand(algorithm, expected):
    """8 pictures of each prompt, 10 rollout steps."""
    assert total(algorithm, RolloutConfig(num_inference_steps=10)) == expected


def test_cost_of_stored_pairs_and_pictures():
    """A pair: 2 pictures x 2 times x (3 + base 1) = 16; a picture: 2 times x 3."""
    data = PairsConfig(path="pairs.jsonl")
    times = NoiseScheduleTimes(draws=2)
    rollout, training = RolloutConfig(), TrainingConfig()
    dpo = training_passes(DiffusionDpoConfig(data=data, times=times), rollout, training)
    assert sum(part.count for part in dpo) == 16
    sft = training_passes(SftConfig(data=ImagesConfig(path="x.jsonl"), times=times), rollout, training)
    assert sum(part.count for part in sft) == 6


def test_rows_of_a_step():
    """What updates are cut from: all pictures, a pair or a best picture of each prompt, stored rows."""
    rollout = RolloutConfig(prompts_per_step=6, group_size=4)
    data = PairsConfig(path="pairs.jsonl")
    for algorithm, rows in [
        (AwmConfig(), 24),
        (NftConfig(), 24),
        (OnlineDpoConfig(), 6),
        (SftBestConfig(), 6),
        (DiffusionDpoConfig(data=data, pairs_per_step=10), 10),
        (SftConfig(data=ImagesConfig(path="x.jsonl"), images_per_step=9), 9),
    ]:
        run = DiffusionRun(algorithm=algorithm, rollout=rollout)
        assert rows_per_step(run) == rows
        assert rows_per_update(run, 2) == (rows // 2, rows - rows // 2)


def test_needs_of_methods():
    """Rows through the network for each row of a micro-batch; the base model; copies."""
    data = PairsConfig(path="pairs.jsonl")
    for algorithm, rows, base, copies in [
        (AwmConfig(kl_beta=0.0), 6, False, 1),
        (AwmConfig(lagged=None), 6, True, 0),
        (NftConfig(), 10, True, 1),
        (OnlineDpoConfig(), 2, True, 0),
        (DiffusionDpoConfig(data=data), 2, True, 0),
        (RwrConfig(), 6, False, 0),
        (SftBestConfig(kl_beta=0.1), 6, True, 0),
    ]:
        run = DiffusionRun(algorithm=algorithm)
        assert (network_rows(run), reads_reference(algorithm), lagged_copies(run)) == (rows, base, copies)
