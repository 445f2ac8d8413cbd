"""Which steps are noisy and which are trained."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from

from diffusion.chain_steps import latest_trained, step_plan, trained_count
from diffusion.config import AllSteps, RandomSteps, RandomWindow, SlidingWindow

EVERY_KIND = [AllSteps(), AllSteps(share=1.0), RandomWindow(), SlidingWindow(size=3, every=2), RandomSteps()]


def test_flow_grpo_trains_all_but_the_noisy_last_step():
    """int(10 * 0.99) = 9."""
    plan = step_plan(AllSteps(), 10, seed=0, step=1)
    assert plan.noisy == (True,) * 10
    assert plan.trained == tuple(range(9))


def test_ddpo_trains_all_steps():
    assert step_plan(AllSteps(share=1.0), 50, seed=0, step=1).trained == tuple(range(50))


def test_a_share_does_not_lose_a_step_to_rounding():
    """0.29 * 100 is 28.999999999999996 in binary."""
    assert trained_count(AllSteps(share=0.29), 100) == 29


def test_random_window_by_hand():
    """n = 10, range (0, 5), size 3: it begins at 0, 1 or 2, all of them in some step, and only it is noisy."""
    settings = RandomWindow(size=3, earliest=0.0, latest=0.5)
    plans = [step_plan(settings, 10, seed=1, step=step) for step in range(1, 60)]
    assert {plan.trained[0] for plan in plans} == {0, 1, 2}
    for plan in plans:
        first = plan.trained[0]
        assert plan.trained == (first, first + 1, first + 2)
        assert plan.noisy == tuple(first <= j < first + 3 for j in range(10))


def test_sliding_window_by_hand():
    """Size 4 in steps 0 .. 23 of 25 (the last is left out), every 25 training steps: 21 places, then from the start.

    Training steps 1 to 25 are at place 0, 26 to 50 at place 1, ..., 501 to 525 at place 20, 526 at place 0 again.
    """
    settings = SlidingWindow(size=4, every=25)
    found = [step_plan(settings, 25, seed=0, step=step).trained[0] for step in (1, 25, 26, 500, 501, 525, 526)]
    assert found == [0, 0, 1, 19, 20, 20, 0]
    assert step_plan(SlidingWindow(size=4, every=1, stride=5), 25, seed=0, step=3).trained == (10, 11, 12, 13)


def test_dance_grpo_trains_a_random_part():
    """n = 16: int(15 * 0.6) = 9 of the first 15, the last deterministic, another subset in another step."""
    plans = [step_plan(RandomSteps(), 16, seed=0, step=step) for step in (1, 2)]
    for plan in plans:
        assert len(plan.trained) == 9
        assert list(plan.trained) == sorted(set(plan.trained))
        assert plan.trained[-1] < 15
        assert plan.noisy == (True,) * 15 + (False,)
    assert plans[0].trained != plans[1].trained


@given(settings=sampled_from(EVERY_KIND), steps=integers(8, 40), seed=integers(0, 99), step=integers(1, 400))
def test_plans_are_sound_and_keyed(settings, steps, seed, step):
    """Trained steps are noisy, as many as announced, never beyond the latest; the same key gives the same plan."""
    plan = step_plan(settings, steps, seed, step)
    assert len(plan.noisy) == steps
    assert len(plan.trained) == trained_count(settings, steps)
    assert all(plan.noisy[j] for j in plan.trained)
    assert plan.trained[-1] <= latest_trained(settings, steps)
    assert plan == step_plan(settings, steps, seed, step)


@pytest.mark.parametrize(
    ("settings", "steps", "reason"),
    [
        (AllSteps(), 1, "no step at all"),
        (RandomSteps(share=0.1), 5, "no step at all"),
        (RandomWindow(size=3), 5, "window of 3 steps does not fit between steps 0 and 2"),
        (SlidingWindow(size=4), 4, "window of 4 steps does not fit"),
    ],
)
def test_too_few_steps_are_refused(settings, steps, reason):
    for ask in (trained_count, latest_trained, lambda *given: step_plan(*given, 0, 1)):
        with pytest.raises(ValueError, match=reason):
            ask(settings, steps)
