"""Intervals: by hand, against scipy, and whether they cover what they claim to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from align.statistics import bootstrap_mean_interval, paired_bootstrap_interval, wilson_interval

NAN = math.nan


class TestWilson:
    def test_by_hand(self):
        """5 of 10, z = 1.959964, z^2 = 3.841459: centre .5; half = 1.959964 / 1.3841459 * sqrt(.025 + .0096036) =
        .263407."""
        interval = wilson_interval(5, 10)
        assert interval.mean == 0.5
        assert interval.n == 10
        assert (interval.low, interval.high) == pytest.approx((0.236593, 0.763407), abs=1e-6)

    @given(n=st.integers(1, 500), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
    def test_agrees_with_scipy(self, n, share, confidence):
        successes = round(share * n)
        expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
        found = wilson_interval(successes, n, confidence)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert 0 <= found.low <= found.mean <= found.high <= 1

    def test_has_a_width_at_both_ends(self):
        nothing, everything = wilson_interval(0, 20), wilson_interval(20, 20)
        assert (nothing.low, everything.high) == (0.0, 1.0)
        assert nothing.high == pytest.approx(1 - everything.low)
        assert nothing.high > 0.1

    @pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 5), (0, 0)])
    def test_refuses_what_is_no_share(self, successes, n):
        with pytest.raises(ValueError, match=f"found {successes} of {n}"):
            wilson_interval(successes, n)

    def test_refuses_a_percentage_as_confidence(self):
        with pytest.raises(ValueError, match="between 0 and 1, found 95"):
            wilson_interval(1, 2, 95.0)


class TestBootstrap:
    def test_two_rows_by_hand(self):
        """0 and 1 drawn twice: means 0, 1/2, 1 with chances 1/4, 1/2, 1/4. Beyond 25 %: the interval at 60 % is [0,
        1]; at 40 % it is 1/2."""
        assert bootstrap_mean_interval([0.0, 1.0], 0.6)[:3] == (0.5, 0.0, 1.0)
        assert bootstrap_mean_interval([0.0, 1.0], 0.4)[:3] == (0.5, 0.5, 0.5)

    def test_is_near_the_normal_interval_for_many_rows(self):
        """Half-width 1.96 s / sqrt(n); the bootstrap's own noise with 10,000 resamples is about 2 % of it."""
        values = np.random.default_rng(0).normal(3.0, 2.0, 400)
        interval = bootstrap_mean_interval(values)
        half = 1.959964 * values.std() / 20
        assert interval.mean == pytest.approx(values.mean())
        assert (interval.low, interval.high) == pytest.approx(
            (values.mean() - half, values.mean() + half), abs=0.06 * half
        )

    def test_agrees_with_scipy(self):
        values = np.random.default_rng(1).exponential(size=60)
        expected = stats.bootstrap(
            (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(5)
        ).confidence_interval
        found = bootstrap_mean_interval(values)
        width = expected.high - expected.low  # two different drawings: a few percent of the width apart
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.05 * width)

    def test_covers_what_it_claims(self):
        """200 samples of 50: about 94 % of the 95 % intervals hold the true mean 0; between 88 % and 99 % but for 1
        in 10^3."""
        generator = np.random.default_rng(2)
        intervals = [bootstrap_mean_interval(generator.normal(size=50), resamples=500) for _ in range(200)]
        assert 0.88 < np.mean([interval.low <= 0 <= interval.high for interval in intervals]) < 0.99

    def test_repeats_and_follows_the_seed(self):
        values = [1.0, 2.0, 5.0, 7.0, 11.0]
        assert bootstrap_mean_interval(values) == bootstrap_mean_interval(values)
        low = {bootstrap_mean_interval(values, resamples=40, seed=seed).low for seed in range(5)}
        assert len(low) > 1

    def test_unscored_rows_are_left_out(self):
        with_nan = bootstrap_mean_interval([1.0, NAN, 2.0, 5.0])
        assert with_nan == bootstrap_mean_interval([1.0, 2.0, 5.0])
        assert with_nan.n == 3

    @pytest.mark.parametrize("values", [[], [NAN, NAN]])
    def test_nothing_has_no_interval(self, values):
        with pytest.raises(ValueError, match=f"none of the {len(values)} values is a number"):
            bootstrap_mean_interval(values)

    def test_equal_rows_have_no_width(self):
        assert bootstrap_mean_interval([0.7] * 9)[1:3] == pytest.approx((0.7, 0.7))

    @given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), confidence=st.sampled_from([0.5, 0.95]))
    def test_lies_within_the_data(self, values, confidence):
        interval = bootstrap_mean_interval(values, confidence, resamples=200)
        slack = 1e-9 * max(1.0, *map(abs, values))
        assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack

    def test_pictures_of_one_prompt_are_no_independent_rows(self):
        """Eight prompts, sixteen copies of one number each: the interval is that of eight numbers, sqrt(16) times
        wider."""
        values = np.repeat(np.arange(8.0), 16)
        prompts = [f"prompt {number}" for number in np.repeat(np.arange(8), 16)]
        clustered, rows = bootstrap_mean_interval(values, clusters=prompts), bootstrap_mean_interval(values)
        assert clustered.mean == rows.mean == 3.5
        ratio = (clustered.high - clustered.low) / (rows.high - rows.low)
        assert ratio == pytest.approx(4, rel=0.1)
        assert clustered[1:3] == pytest.approx(bootstrap_mean_interval(np.arange(8.0))[1:3])

    def test_clusters_of_unequal_size_weigh_by_their_rows(self):
        """One cluster 0 0 0, the other 4: drawn twice the first, 0; twice the second, 4; one of each, 1 (not 2)."""
        values, clusters = [0.0, 0.0, 0.0, 4.0], ["a", "a", "a", "b"]
        assert bootstrap_mean_interval(values, 0.4, clusters=clusters)[:3] == (1.0, 1.0, 1.0)
        assert bootstrap_mean_interval(values, 0.6, clusters=clusters)[:3] == (1.0, 0.0, 4.0)

    def test_a_single_cluster_is_drawn_by_rows(self):
        values = [1.0, 2.0, 3.0]
        assert bootstrap_mean_interval(values, clusters=["a"] * 3) == bootstrap_mean_interval(values)

    def test_a_cluster_for_every_row(self):
        with pytest.raises(ValueError, match="found 1 clusters for 2 rows"):
            bootstrap_mean_interval([1.0, 2.0], clusters=["a"])


class TestPaired:
    def test_is_the_interval_of_the_differences(self):
        before, after = [0.0, 10.0, 20.0, NAN], [1.0, 12.0, 21.0, 5.0]
        assert paired_bootstrap_interval(before, after) == bootstrap_mean_interval([1.0, 2.0, 1.0])

    def test_pairing_removes_what_the_rows_share(self):
        """Scores spread over 100, every gain near 1: unpaired the gain drowns, paired it is above zero."""
        generator = np.random.default_rng(3)
        before = generator.uniform(0, 100, 64)
        after = before + 1 + generator.normal(0, 0.5, 64)
        gain = paired_bootstrap_interval(before, after)
        assert 0.5 < gain.low < gain.mean < gain.high < 1.5
        assert bootstrap_mean_interval(after).low < bootstrap_mean_interval(before).high

    def test_swapping_sides_negates(self):
        one, two = [1.0, 2.0, 5.0], [2.0, 1.5, 9.0]
        gain, loss = paired_bootstrap_interval(one, two), paired_bootstrap_interval(two, one)
        assert (gain.mean, gain.low, gain.high) == pytest.approx((-loss.mean, -loss.high, -loss.low))

    def test_rows_must_be_the_same(self):
        with pytest.raises(ValueError, match=r"found 1 and 2.*same prompts and seeds"):
            paired_bootstrap_interval([1.0], [1.0, 2.0])
