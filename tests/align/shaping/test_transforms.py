"""One column at a time: by hand, what all of them share, and against a slow loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.shaping import transforms as tf

NAN = math.nan
IDS = torch.tensor([7, -2, 7, -2, 7, 3])
LOG2 = math.log(2)


def t(*values):
    return torch.tensor(values)


def references(values):
    return torch.linspace(-1, 1, 3).expand(len(values), 3)


EACH = {
    "identity": tf.identity,
    "affine": lambda v, g: tf.affine(v, g, scale=-2.0, shift=1.0),
    "zscore": tf.zscore,
    "zscore batch": lambda v, g: tf.zscore(v, g, scope="batch", unbiased=False, eps_mode="floor"),
    "robust_zscore": lambda v, g: tf.robust_zscore(v, g, scope="group"),
    "minmax": lambda v, g: tf.minmax(v, g, scope="group"),
    "rank": tf.rank,
    "clip": lambda v, g: tf.clip(v, g, low=-1.0, high=2.0),
    "clip stds": lambda v, g: tf.clip(v, g, stds=0.5),
    "tanh": lambda v, g: tf.tanh(v, g, center=0.5, scale=2.0),
    "threshold": lambda v, g: tf.threshold(v, g, at_least=1.0),
    "log_prob": lambda v, g: tf.log_prob(v, g, eps=1e-3),
    "lsc": lambda v, g: tf.lsc(v, g, reference=0.5),
    "lsc group": tf.lsc,
    "par": lambda v, g: tf.par(v, g, references=references(v)),
    "reference_quantile": lambda v, g: tf.reference_quantile(v, g, references=torch.zeros(len(v), 2)),
    "length_penalty": lambda v, g: tf.length_penalty(v, g, lengths=torch.full((len(v),), 5.0), free=3.0, per_unit=0.5),
    "gate": lambda v, g: tf.gate(v, g, on=torch.where(v.detach() > 0.3, 1.0, 0.0).to(v.dtype), at_least=0.5),
}
"""All transforms (but `impute`, whose work is to replace NaN) with options that make it do something."""


@pytest.mark.parametrize("name", EACH)
def test_nan_stays_and_changes_nothing_else(name):
    """Rows without a score can be taken out: bit for bit the same results for the others."""
    values = torch.tensor([1.0, 0.25, NAN, 0.75, 3.0, NAN, -1.5], dtype=torch.float64)
    ids = torch.tensor([0, 0, 0, 1, 1, 1, 0])
    scored = ~values.isnan()
    found = EACH[name](values, ids)
    assert torch.equal(found.isnan(), ~scored)
    assert torch.equal(found[scored], EACH[name](values[scored], ids[scored]))


@pytest.mark.parametrize("name", [name for name in EACH if "batch" not in name])
def test_groups_do_not_see_each_other(name):
    values, ids = torch.tensor([1.0, 3.0, 2.0, 5.0, 9.0]), torch.tensor([0, 0, 0, 1, 1])
    other = torch.tensor([1.0, 3.0, 2.0, -70.0, NAN])
    assert torch.equal(EACH[name](values, ids)[:3], EACH[name](other, ids)[:3])


@pytest.mark.parametrize("name", EACH)
def test_dtype_and_order_of_rows(name):
    values = torch.tensor([0.1, 0.9, 0.4, 0.6, 0.2, 0.5])
    single, double = EACH[name](values, IDS), EACH[name](values.double(), IDS)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    assert_close(single, double.float(), rtol=1e-6, atol=1e-6)
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    assert_close(EACH[name](values[order], IDS[order]), single[order], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", EACH)
def test_an_empty_column_is_empty(name):
    empty = torch.zeros(0)
    assert EACH[name](empty, torch.zeros(0, dtype=torch.int64)).shape == (0,)


DIFFERENTIABLE = [
    name for name in EACH if name not in ("rank", "threshold", "reference_quantile", "clip stds", "lsc group")
]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_central_differences(name):
    values = torch.tensor([0.31, 0.92, 0.43, 0.67, 0.24, 0.55], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: EACH[name](v, IDS), (values,))


@pytest.mark.parametrize("name", EACH)
def test_gradients_are_finite_beside_a_constant_group_and_an_unscored_sample(name):
    values = torch.tensor([2.0, 2.0, 1.0, 3.0, NAN, 4.0], requires_grad=True)
    ids = torch.tensor([0, 0, 1, 1, 1, 2])
    found = EACH[name](values, ids)
    if found.requires_grad:
        found[~found.isnan()].sum().backward()
        assert values.grad[[0, 1, 2, 3, 5]].isfinite().all()


def test_zscore_by_hand():
    """Group 7: 1 2 6, mean 3, squares 4 1 9 = 14, std sqrt 7 (n - 1), sqrt(14/3) (n). Group -2: 4 4. Group 3: alone."""
    values = t(1.0, 4.0, 2.0, 4.0, 6.0, 9.0)
    root = math.sqrt(7)
    assert_close(tf.zscore(values, IDS, eps=0.0), t(-2 / root, 0.0, -1 / root, 0.0, 3 / root, 0.0))
    root = math.sqrt(14 / 3)
    found = tf.zscore(values, IDS, unbiased=False, eps=0.5)
    assert_close(found, t(-2.0, 0.0, -1.0, 0.0, 3.0, 0.0) / (root + 0.5))
    found = tf.zscore(values, IDS, unbiased=False, eps=100.0, eps_mode="floor")
    assert_close(found, t(-0.02, 0.0, -0.01, 0.0, 0.03, 0.0))


@given(value=st.floats(-1e6, 1e6, width=32), size=st.integers(1, 40), scope=st.sampled_from(["group", "batch"]))
def test_equal_rewards_have_zscore_exactly_zero(value, size, scope):
    values = torch.full((size,), value)
    for eps in (0.0, 1e-8):
        assert (tf.zscore(values, torch.zeros(size, dtype=torch.int64), scope=scope, eps=eps) == 0).all()


@given(
    rewards=st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=12),
    groups=st.integers(1, 3),
    scale=st.floats(0.5, 4),
    shift=st.floats(-5, 5),
)
def test_zscore_ignores_unit_and_offset(rewards, groups, scale, shift):
    values = torch.tensor(rewards, dtype=torch.float64).round(decimals=3)
    ids = torch.arange(len(values)) % groups
    assert_close(tf.zscore(scale * values + shift, ids, eps=0.0), tf.zscore(values, ids, eps=0.0), rtol=1e-6, atol=1e-6)


def slow_rank(values, ids):
    """(number below + half the number of others that are equal + 1/2) / n, by counting."""
    out = []
    for value, group in zip(values, ids, strict=True):
        mates = [v for v, g in zip(values, ids, strict=True) if g == group]
        out.append((sum(v < value for v in mates) + (sum(v == value for v in mates) - 1) / 2 + 0.5) / len(mates))
    return out


@given(rewards=st.lists(st.integers(-3, 3), min_size=1, max_size=15), groups=st.integers(1, 4))
def test_rank_against_counting(rewards, groups):
    ids = [i % groups for i in range(len(rewards))]
    found = tf.rank(torch.tensor(rewards, dtype=torch.float64), torch.tensor(ids))
    assert found.tolist() == pytest.approx(slow_rank(rewards, ids))


def test_rank_by_hand():
    """5 1 1 9: ranks 3, 1.5, 1.5, 4 of 4."""
    found = tf.rank(t(5.0, 1.0, 1.0, 9.0), torch.zeros(4, dtype=torch.int64))
    assert found.tolist() == [2.5 / 4, 1 / 4, 1 / 4, 3.5 / 4]


def test_robust_zscore_by_hand():
    """1 2 3 4 100: median 3, deviations 2 1 0 1 97, their median 1. The outlier moves nothing but itself."""
    found = tf.robust_zscore(t(1.0, 2.0, 3.0, 4.0, 100.0), torch.zeros(5, dtype=torch.int64))
    assert_close(found, t(-2.0, -1.0, 0.0, 1.0, 97.0) / 1.4826)
    assert tf.robust_zscore(t(1.0, 1.0, 1.0, 5.0), torch.zeros(4, dtype=torch.int64)).tolist() == [0.0] * 4


def test_minmax_by_hand():
    ids = torch.tensor([0, 0, 0, 1, 1])
    assert tf.minmax(t(2.0, 4.0, 3.0, 7.0, 7.0), ids, scope="group").tolist() == [0.0, 1.0, 0.5, 0.5, 0.5]
    assert tf.minmax(t(2.0, 4.0, 3.0, 7.0, 12.0), ids).tolist() == pytest.approx([0.0, 0.2, 0.1, 0.5, 1.0])
    assert tf.minmax(t(2.0, 4.0, 3.0, 7.0, 12.0), ids, low=0.0, high=10.0).tolist() == pytest.approx(
        [0.2, 0.4, 0.3, 0.7, 1.2]
    )


def test_clip_by_hand():
    """0 0 6: mean 2, std sqrt(12) (n - 1): limits 2 +- sqrt 12 / 2 = 0.268 and 3.732."""
    ids = torch.zeros(3, dtype=torch.int64)
    half = math.sqrt(12) / 2
    assert_close(tf.clip(t(0.0, 0.0, 6.0), ids, stds=0.5), t(2 - half, 2 - half, 2 + half))
    assert tf.clip(t(-5.0, 0.5, 6.0), ids, high=1.0).tolist() == [-5.0, 0.5, 1.0]


def test_lsc_by_hand():
    """log sigma: at the reference -log 2; the three numbers of log sigma(2) and log sigma(-2) differ by 2."""
    ids = torch.tensor([0, 0, 1])
    found = tf.lsc(t(3.0, 5.0, 1.0).double(), ids, reference=t(3.0, 3.0, 3.0).double())
    assert_close(found, torch.tensor([-LOG2, -0.126928, -2.126928], dtype=torch.float64), rtol=0, atol=1e-6)
    assert tf.lsc(t(3.0), ids[:1], reference=1.0, scale=2.0).item() == pytest.approx(math.log(1 / (1 + math.exp(-1))))


@given(z=st.floats(-1e4, 1e4, width=32), shift=st.integers(-50, 50))
def test_lsc_identities(z, shift):
    """u <= 0, u(r + c, ref + c) = u(r, ref), log sigma(z) - log sigma(-z) = z; finite in float32."""
    ids = torch.zeros(1, dtype=torch.int64)
    value = torch.tensor([z], dtype=torch.float64)
    up, down = tf.lsc(value, ids, reference=0.0), tf.lsc(-value, ids, reference=0.0)
    assert up <= 0
    assert_close(up - down, value, rtol=1e-9, atol=1e-9)
    assert_close(tf.lsc(value + shift, ids, reference=float(shift)), up, rtol=1e-6, atol=1e-9)
    assert tf.lsc(value.float(), ids, reference=0.0).isfinite().all()


def test_lsc_at_the_ends():
    """At -1e4 the value is -1e4 and the slope 1; at +1e4 both are 0. Float32."""
    values = t(-1e4, 1e4).requires_grad_()
    found = tf.lsc(values, torch.tensor([0, 0]), reference=0.0)
    found.sum().backward()
    assert found.tolist() == [-1e4, 0.0]
    assert values.grad.tolist() == [1.0, 0.0]


def test_lsc_without_a_reference_leaves_the_sample_unscored():
    found = tf.lsc(t(1.0, 1.0), torch.tensor([0, 1]), reference=t(1.0, NAN))
    assert_close(found, t(-LOG2, NAN), equal_nan=True)


def test_references_by_hand():
    """Gaussian: mean 2, std 1 (n - 1), PhiInv(0.85) = 1.0364334. Empirical: position 0.85 * 2 = 1.7 in 1 2 3."""
    values, ids = t(1.0, 3.0, 2.0, 5.0, NAN), torch.tensor([0, 0, 0, 1, 2])
    found = tf.quantile_reference(values, ids)
    assert_close(found, torch.tensor([3.0364334] * 3 + [5.0, NAN], dtype=torch.float64), equal_nan=True)
    found = tf.quantile_reference(values, ids, method="empirical")
    assert_close(found, torch.tensor([2.7] * 3 + [5.0, NAN], dtype=torch.float64), equal_nan=True)
    marks = torch.tensor([False, True, False, False, True])
    found = tf.canonical_reference(values, ids, canonical=marks)
    assert_close(found, torch.tensor([3.0] * 3 + [NAN, NAN], dtype=torch.float64), equal_nan=True)


def test_par_and_reference_quantile_by_hand():
    """par: (sigma(0) + sigma(2)) / 2 = (0.5 + 0.880797) / 2. Quantile of 1 among 1, -1, 3: (1 + 1/2) / 3."""
    ids = torch.tensor([0, 0])
    references = torch.tensor([[1.0, -1.0, NAN], [NAN, NAN, NAN]])
    assert_close(tf.par(t(1.0, 1.0), ids, references=references), t(0.6903985, NAN), equal_nan=True)
    references = torch.tensor([[1.0, -1.0, 3.0], [NAN, NAN, NAN]])
    assert_close(tf.reference_quantile(t(1.0, 1.0), ids, references=references), t(0.5, NAN), equal_nan=True)


def test_gate_by_hand():
    """Group 0 is non-negative: floor 0. Group 1 holds -2 and 2: mean 0, std sqrt 8, floor -2 - sqrt 8."""
    ids, values = torch.tensor([0, 0, 1, 1, 1]), t(3.0, 4.0, -2.0, 2.0, 5.0)
    on = t(1.0, 0.0, 0.0, 1.0, NAN)
    values[4] = NAN
    found = tf.gate(values, ids, on=on, at_least=0.5)
    assert_close(found, t(3.0, 0.0, -2 - math.sqrt(8), 2.0, NAN), equal_nan=True)
    assert tf.gate(t(3.0, 4.0), ids[:2], on=t(1.0, 2.0), at_most=1.0, floor=-9.0).tolist() == [3.0, -9.0]


def test_an_unknown_gate_is_no_failed_one():
    found = tf.gate(t(3.0, 4.0), torch.tensor([0, 0]), on=t(NAN, 1.0), at_least=1.0)
    assert_close(found, t(NAN, 4.0), equal_nan=True)


def test_impute_and_length_penalty_by_hand():
    ids = torch.tensor([0, 0, 0, 1])
    assert_close(tf.impute(t(1.0, NAN, 4.0, NAN), ids), t(1.0, 2.5, 4.0, NAN), equal_nan=True)
    found = tf.length_penalty(t(1.0, 1.0), ids[:2], lengths=torch.tensor([5, 12]), free=10.0, per_unit=0.25)
    assert found.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tf.affine(t(1.0), IDS[:1], scale=0.0), "`scale` must not be 0"),
        (lambda: tf.zscore(t(1.0), IDS[:1], eps=-1.0), "`eps` must not be negative, found -1"),
        (lambda: tf.zscore(t(1.0), IDS[:1], eps_mode="times"), "`eps_mode` must be one of add, floor, found 'times'"),
        (lambda: tf.clip(t(1.0), IDS[:1]), "found none of them"),
        (lambda: tf.clip(t(1.0), IDS[:1], low=2.0, high=1.0), "`low` at most `high`"),
        (lambda: tf.clip(t(1.0), IDS[:1], stds=0.0), "`stds` must be above 0"),
        (lambda: tf.minmax(t(1.0), IDS[:1], low=1.0, high=1.0), "`low` below `high`"),
        (lambda: tf.tanh(t(1.0), IDS[:1], scale=0.0), "`scale` must be a finite number above 0"),
        (lambda: tf.log_prob(t(1.0), IDS[:1], eps=0.0), "`eps` must be between 0 and 1"),
        (lambda: tf.lsc(t(1.0), IDS[:1], scale=-1.0), "`scale` must be a finite number above 0"),
        (lambda: tf.lsc(t(1.0), IDS[:1], q=1.0), "`q` must be between 0 and 1"),
        (lambda: tf.lsc(t(1.0), IDS[:1], method="guess"), "`method` must be one of gaussian, empirical"),
        (lambda: tf.gate(t(1.0), IDS[:1], on=t(1.0)), "`at_least` or `at_most`"),
        (lambda: tf.length_penalty(t(1.0), IDS[:1], lengths=t(1.0), free=-1.0, per_unit=1.0), "must not be negative"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
