"""Index ranges of the schedule from which training times are drawn."""

import pytest

from diffusion.strata import discrete_strata


def test_strata_of_the_released_configuration():
    """14 steps, until 0.9: end = int(12.6) = 12;
    six strata of [1, 12) have the edges 1 + 11 k // 6 = 1, 2, 4, 6, 8, 10, 12.
    """
    assert discrete_strata(14, 6) == [(1, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]


def test_strata_with_the_initial_time():
    """allow: [0, 12) in six; always: index 0 and five strata of [1, 12): 1 + 11 k // 5 = 1, 3, 5, 7, 9, 12."""
    assert discrete_strata(14, 6, "allow") == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]
    assert discrete_strata(14, 6, "always") == [(0, 1), (1, 3), (3, 5), (5, 7), (7, 9), (9, 12)]
    assert discrete_strata(14, 1, "always") == [(0, 1)]


def test_end_of_the_trained_times_survives_binary_fractions():
    """0.29 * 100 is 28.999999999999996 in binary; the trained indices end at 29 all the same."""
    assert discrete_strata(100, 1, "allow", until=0.29) == [(0, 29)]


@pytest.mark.parametrize(
    ("steps", "draws", "initial"), [(4, 3, "skip"), (1, 1, "skip"), (4, 4, "allow"), (4, 4, "always")]
)
def test_more_strata_than_times_is_an_error(steps, draws, initial):
    with pytest.raises(ValueError, match=f"{draws} strata of training times do not fit .* {steps} steps"):
        discrete_strata(steps, draws, initial)


def test_unknown_initial_is_an_error():
    with pytest.raises(ValueError, match="'allow', 'always', 'skip'"):
        discrete_strata(14, 6, "never")
