"""Every combination: by hand, what all of them share, invariants of the method page, gradients."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.shaping import combine

NAN = math.nan
IDS = torch.tensor([0, 1, 0, 1, 0])

ALL = {
    "weighted_sum": combine.weighted_sum,
    "directional": combine.directional,
    "gated": lambda v, w, **o: combine.gated(v, w, gate=0, at_least=1.0, floor=0.0, **o),
    "lsc_and": combine.lsc_and,
    "soft_min": combine.soft_min,
    "worst": lambda v, w, **o: combine.soft_min(v, w, tau=0.0, **o),
    "power_mean": lambda v, w, **o: combine.power_mean(v, w, p=-1.0, **o),
    "nash": combine.nash,
    "chebyshev": lambda v, w, **o: combine.chebyshev(v, w, ideal=10.0, **o),
    "smooth chebyshev": lambda v, w, **o: combine.chebyshev(v, w, ideal=10.0, mu=0.1, **o),
    "lexicographic": lambda v, w, **o: combine.lexicographic(v, w),
}
PER_ROW = [name for name in ALL if name != "lexicographic"]
MONOTONE = [name for name in ALL if name not in ("gated",)]


def t(*rows):
    return torch.tensor(rows)


@pytest.mark.parametrize("name", ALL)
def test_a_column_of_weight_zero_never_matters(name):
    values = t([1.0, 2.0, NAN], [3.0, 1.0, 1e30], [2.0, 2.0, -5.0])
    plain = t([1.0, 2.0, 0.0], [3.0, 1.0, 0.0], [2.0, 2.0, 0.0])
    weights = torch.tensor([0.5, 0.5, 0.0])
    assert torch.equal(ALL[name](values, weights), ALL[name](plain, weights))


@pytest.mark.parametrize("name", PER_ROW)
def test_rows_do_not_see_each_other(name):
    values, weights = t([1.0, 2.0], [NAN, NAN], [3.0, 0.5]), torch.tensor([0.25, 0.75])
    found = ALL[name](values, weights)
    assert found[1].isnan()
    assert torch.equal(found[[0, 2]], ALL[name](values[[0, 2]], weights))


@pytest.mark.parametrize("name", PER_ROW)
def test_missing_unscored(name):
    found = ALL[name](t([1.0, NAN], [1.0, 2.0]), torch.tensor([0.25, 0.75]), missing="unscored")
    assert found.isnan().tolist() == [True, False]


@pytest.mark.parametrize("name", [name for name in PER_ROW if name != "directional"])
def test_missing_renormalise_gives_the_others_the_whole_weight(name):
    """With a gap in the second column the score is that of the first alone with weight 1 (the sum of the weights)."""
    found = ALL[name](t([1.5, NAN]), torch.tensor([0.25, 0.75]), missing="renormalise")
    assert_close(found, ALL[name](t([1.5, 0.0]), torch.tensor([1.0, 0.0]), missing="unscored"))


@pytest.mark.parametrize("name", ALL)
def test_order_of_rewards_and_rows(name):
    values, weights = t([1.0, 2.0, 3.0], [3.0, 0.5, 1.0], [2.0, 2.0, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    found = ALL[name](values, weights)
    assert_close(ALL[name](values[[2, 0, 1]], weights), found[[2, 0, 1]])
    if name != "gated":  # its gate is a place
        assert_close(ALL[name](values[:, [1, 2, 0]], weights[[1, 2, 0]]), found)


@pytest.mark.parametrize("name", ALL)
def test_dtype_follows_the_rewards_and_float32_is_exact(name):
    torch.manual_seed(0)
    values, weights = torch.rand(8, 3) + 0.5, torch.tensor([0.2, 0.3, 0.5])
    single, double = ALL[name](values, weights), ALL[name](values.double(), weights)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert_close(single, double.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MONOTONE)
def test_more_of_a_reward_is_never_worse(name):
    torch.manual_seed(1)
    values, weights = torch.rand(6, 3, dtype=torch.float64) + 0.1, torch.tensor([0.2, 0.3, 0.5])
    before = ALL[name](values, weights)
    for row, column in itertools.product(range(6), range(3)):
        raised = values.clone()
        raised[row, column] += 0.4
        assert ALL[name](raised, weights)[row] >= before[row] - 1e-12


SMOOTH = [name for name in PER_ROW if name not in ("gated",)]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_central_differences(name):
    values = torch.tensor([[0.5, 1.7, 0.9], [2.0, 0.3, 1.1]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.2, 0.3, 0.5])
    assert torch.autograd.gradcheck(lambda v: ALL[name](v, weights), (values,))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5, 0.5], "expected one weight per reward"),
        ([0.5, math.inf], "weights must be finite numbers, found inf"),
        ([0.5, NAN], "weights must be finite numbers, found nan"),
        ([0.0, 0.0], "weight|reward"),
        ([-0.5, 1.0], "weights must not be negative, found -0.5"),
    ],
)
def test_bad_weights(name, weights, message):
    if weights[0] < 0 and name in ("directional", "lexicographic"):  # signs are their point
        assert ALL[name](t([1.0, 2.0]), torch.tensor(weights)).isfinite().all()
        return
    with pytest.raises(ValueError, match=message):
        ALL[name](t([1.0, 2.0]), torch.tensor(weights))


def test_renormalise_by_hand():
    """(2*1 + 1*4) = 6; without the second: 2*1 * 3/2 = 3; skip: 2; nothing at all: no score."""
    values, weights = t([1.0, 4.0], [1.0, NAN], [NAN, NAN]), torch.tensor([2.0, 1.0])
    found = combine.weighted_sum(values, weights, missing="renormalise")
    assert_close(found, torch.tensor([6.0, 3.0, NAN]), equal_nan=True)
    found = combine.weighted_sum(values, weights, missing="skip")
    assert_close(found, torch.tensor([6.0, 2.0, NAN]), equal_nan=True)


def test_renormalise_refuses_signs():
    with pytest.raises(ValueError, match="needs weights of one sign"):
        combine.weighted_sum(t([1.0, 2.0]), torch.tensor([1.0, -1.0]), missing="renormalise", allow_negative=True)


def test_directional_by_hand():
    """(4, -3) / 5 = (0.8, -0.6): 0.8*10 - 0.6*5 = 5; the length of the direction does not matter."""
    values = t([10.0, 5.0])
    assert combine.directional(values, torch.tensor([4.0, -3.0])).tolist() == pytest.approx([5.0])
    assert combine.directional(values, torch.tensor([400.0, -300.0])).tolist() == pytest.approx([5.0])


def test_lsc_and_by_hand():
    """log sigma(5) + log sigma(-2) = -0.00671535 - 2.126928; 2 log sigma(1) = -0.626523. AND: exp = product."""
    values = t([5.0, -2.0], [1.0, 1.0]).double()
    found = combine.lsc_and(values, torch.ones(2))
    assert_close(found, torch.tensor([-2.133643, -0.626523], dtype=torch.float64), rtol=0, atol=1e-6)
    assert_close(found.exp(), values.sigmoid().prod(dim=1))
    with pytest.raises(ValueError, match="0 means surely good"):
        combine.lsc_and(values, torch.ones(2), missing="skip")


def test_soft_min_by_hand():
    """u = 0 and 1, tau 1, halves: -log((1 + e^-1) / 2) = 0.379885."""
    values, weights = t([0.0, 1.0]), torch.tensor([1.0, 1.0])
    assert combine.soft_min(values, weights, tau=1.0).item() == pytest.approx(0.3798855)
    assert combine.soft_min(values, weights, tau=0.0).item() == 0.0
    assert combine.soft_min(values, weights, tau=math.inf).item() == 0.5
    assert combine.soft_min(1e4 * values, weights, tau=1e-3).isfinite().all()


@given(
    u=st.lists(st.floats(-5, 5), min_size=2, max_size=4),
    w=st.lists(st.floats(0.1, 2), min_size=4, max_size=4),
    tau=st.floats(0.01, 10),
)
def test_soft_min_lies_between_the_worst_and_the_mean(u, w, tau):
    values, weights = torch.tensor([u], dtype=torch.float64), torch.tensor(w[: len(u)], dtype=torch.float64)
    found = combine.soft_min(values, weights, tau=tau).item()
    assert min(u) - 1e-9 <= found <= (values[0] @ weights / weights.sum()).item() + 1e-9


def test_power_mean_by_hand():
    """Of 1 and 4: mean 2.5, geometric 2, harmonic 1.6, worst 1."""
    values, weights = t([1.0, 4.0]), torch.tensor([1.0, 1.0])
    for p, expected in ((1.0, 2.5), (0.0, 2.0), (-1.0, 1.6), (-math.inf, 1.0)):
        assert combine.power_mean(values, weights, p=p).item() == pytest.approx(expected)


def test_nash_by_hand():
    """0.5 log(3 - 1) + 0.5 log(9 - 1) = 0.5 log 16 = 1.386294. At gain -delta: log(delta) - 2."""
    found = combine.nash(t([3.0, 9.0]), torch.tensor([0.5, 0.5]), disagreement=1.0)
    assert found.item() == pytest.approx(math.log(4))
    found = combine.nash(t([-0.1]), torch.tensor([1.0]), delta=0.1)
    assert found.item() == pytest.approx(math.log(0.1) - 2)


@given(a=st.floats(0.1, 10), b=st.floats(-5, 5), u=st.lists(st.floats(1, 9), min_size=2, max_size=2))
def test_nash_does_not_depend_on_units(a, b, u):
    """(u, d) -> (a u + b, a d + b) for the first reward adds w log a."""
    values, weights = torch.tensor([u], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
    moved = values.clone()
    moved[:, 0] = a * values[:, 0] + b
    d = torch.tensor([a * 0.5 + b, 0.5], dtype=torch.float64)
    found = combine.nash(moved, weights, disagreement=d, delta=1e-4)
    plain = combine.nash(values, weights, disagreement=0.5, delta=1e-4)
    assert_close(found, plain + 0.3 * math.log(a), rtol=1e-9, atol=1e-9)


def test_chebyshev_by_hand():
    """z = 10: behind by 0.5*9 = 4.5 and 0.5*6 = 3: -(4.5) - 0.05*7.5 = -4.875."""
    found = combine.chebyshev(t([1.0, 4.0]), torch.tensor([0.5, 0.5]), ideal=10.0)
    assert found.item() == pytest.approx(-4.875)
    smooth = combine.chebyshev(t([1.0, 4.0]), torch.tensor([0.5, 0.5]), ideal=10.0, mu=1.0, rho=0.0)
    assert smooth.item() == pytest.approx(-math.log(math.exp(4.5) + math.exp(3)))


def test_chebyshev_takes_its_ideal_from_the_group():
    """Groups 0: best 3, 2; z = 3.1, 2.1. The row (3, 2) is behind by 0.1 in both: -0.05 - 0.05 * 0.1."""
    values = t([3.0, 2.0], [100.0, 100.0], [1.0, 0.0])
    found = combine.chebyshev(values, torch.tensor([0.5, 0.5]), group_ids=torch.tensor([0, 1, 0]))
    assert found[0].item() == pytest.approx(-0.055)
    assert found[1].item() == pytest.approx(-0.055)


def test_what_a_weighted_sum_cannot_reach():
    """On the concave front (x^2, (1-x)^2) no weights select an inner point; Chebyshev selects all eleven."""
    x = torch.linspace(0, 1, 11, dtype=torch.float64)
    values = torch.stack([x**2, (1 - x) ** 2], dim=1)
    users = torch.linspace(0.001, 0.999, 2001, dtype=torch.float64)
    sums, corners = set(), set()
    for w in users.tolist():
        weights = torch.tensor([w, 1 - w], dtype=torch.float64)
        sums.add(int(combine.weighted_sum(values, weights).argmax()))
        corners.add(int(combine.chebyshev(values, weights, ideal=1.0, rho=0.0).argmax()))
    assert sums == {0, 10}
    assert corners == set(range(11))


def test_gated_by_hand():
    """Gate 1 opens at 1. Row 0: 1 + 2*5 = 11. Row 1 fails: 0 + 2*0. Row 2: gate unknown."""
    values = t([1.0, 5.0], [0.0, 7.0], [NAN, 7.0])
    found = combine.gated(values, torch.tensor([1.0, 2.0]), gate=0, at_least=1.0)
    assert_close(found, torch.tensor([11.0, 0.0, NAN]), equal_nan=True)
    with pytest.raises(ValueError, match="`gate` must be a column of the rewards"):
        combine.gated(values, torch.tensor([1.0, 2.0]), gate=2, at_least=1.0)


def test_a_failed_gate_never_helps():
    """Negative rewards behind the gate: with the default floor, failing is worse than every passing sample."""
    values = t([1.0, -5.0], [0.0, -1.0], [1.0, -3.0])
    found = combine.gated(values, torch.tensor([0.0, 1.0]), gate=0, at_least=1.0)
    assert found[1] < min(found[0], found[2])


def test_lexicographic_by_hand():
    """First reward 2 2 1: rows 0 and 1 tie and the second decides. (rank - 1/2) / 3."""
    values = t([2.0, 1.0], [2.0, 3.0], [1.0, 9.0])
    assert combine.lexicographic(values).tolist() == pytest.approx([0.5, 2.5 / 3, 0.5 / 3])
    assert combine.lexicographic(values, order=[1]).tolist() == pytest.approx([0.5 / 3, 0.5, 2.5 / 3])


def test_lexicographic_tolerance_by_hand():
    """1.0 and 0.9 are equal within 0.1 (float32 and all), 0.8 is not: the second reward puts row 1 first, then row 0;
    0.8 comes last although its second is the best."""
    values = t([1.0, 1.0], [0.9, 2.0], [0.8, 9.0])
    found = combine.lexicographic(values, tolerances=(0.1, 0.0))
    assert found.tolist() == pytest.approx([0.5, 2.5 / 3, 0.5 / 3])


def slow_lexicographic(rows, tolerances):
    """Sets by repeated selection, as in the definition, on plain lists; returns the level of each row."""
    level, left, number = {}, set(range(len(rows))), 0
    while left:
        best = set(left)
        for k, tolerance in enumerate(tolerances):
            top = max(rows[i][k] for i in best)
            best = {i for i in best if rows[i][k] >= top - tolerance}
        for i in best:
            level[i] = number
        left, number = left - best, number + 1
    return [level[i] for i in range(len(rows))]


@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=10),
    tolerance=st.sampled_from([0.0, 1.0]),
)
def test_lexicographic_against_the_definition(rows, tolerance):
    values = torch.tensor(rows, dtype=torch.float64)
    ids = torch.arange(len(rows)) % 2
    found = combine.lexicographic(values, tolerances=(tolerance, 0.0), group_ids=ids)
    for group in (0, 1):
        mine = [row for i, row in enumerate(rows) if i % 2 == group]
        levels = slow_lexicographic(mine, (tolerance, 0.0))
        scores = found[ids == group].tolist()
        for (a, x), (b, y) in itertools.combinations(zip(levels, scores, strict=True), 2):
            assert (a < b) == (x > y)
        assert sum(scores) == pytest.approx(len(mine) / 2)


def test_lexicographic_leaves_gaps_unranked():
    found = combine.lexicographic(t([1.0, 1.0], [NAN, 2.0], [0.5, 9.0]))
    assert_close(found, torch.tensor([0.75, NAN, 0.25]), equal_nan=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": [0, 0]}, "each at most once"),
        ({"order": [5]}, "columns 0 to 1"),
        ({"tolerances": (0.1,)}, "expected 2 tolerances"),
        ({"tolerances": (0.1, -1.0)}, "expected 2 tolerances of 0 or more"),
    ],
)
def test_lexicographic_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        combine.lexicographic(t([1.0, 2.0]), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, w: combine.soft_min(v, w, tau=-1.0), "`tau` must not be negative"),
        (lambda v, w: combine.power_mean(v, w, delta=0.0), "`delta` must be above 0"),
        (lambda v, w: combine.power_mean(v, w, p=math.inf), "`p` must be a number below infinity"),
        (lambda v, w: combine.nash(v, w, delta=-1.0), "`delta` must be above 0"),
        (lambda v, w: combine.chebyshev(v, w, rho=-1.0), "`rho` must not be negative"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call(t([1.0, 2.0]), torch.tensor([0.5, 0.5]))
