"""The DPO family: by hand, against scalar formulas, and what must hold for every loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from preference.losses import LOSSES, available, dpo

EPS = 0.1
OPTIONS = {"exo_pair": {"label_smoothing": EPS}, "robust": {"label_smoothing": EPS}}
LENGTHS = {"chosen_lengths": torch.tensor([4, 2, 9, 1, 5]), "rejected_lengths": torch.tensor([3, 7, 2, 6, 5])}


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def options(kind):
    return OPTIONS.get(kind, {}) | (LENGTHS if kind == "sigmoid_norm" else {})


def batch(seed=0, n=5, scale=10.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(n, generator=generator, dtype=torch.float64) - 40 for _ in range(4)]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def sigmoid(x):
    return math.exp(log_sigmoid(x))


def kl(q, p):
    return sum(a * math.log(a / b) for a, b in zip(q, p))


# One pair's loss from a, b, beta, n_w, n_l: the formulas of the papers, one line of plain Python each.
SCALAR = {
    "sigmoid": lambda a, b, t, n, m: -log_sigmoid(t * (a - b)),
    "sigmoid_norm": lambda a, b, t, n, m: -log_sigmoid(t * (a / n - b / m)),
    "hinge": lambda a, b, t, n, m: max(0.0, 1 - t * (a - b)),
    "ipo": lambda a, b, t, n, m: (a - b - 1 / (2 * t)) ** 2,
    "exo_pair": lambda a, b, t, n, m: kl((sigmoid(t * (a - b)), sigmoid(t * (b - a))), (1 - EPS, EPS)),
    "nca_pair": lambda a, b, t, n, m: -log_sigmoid(t * a) - 0.5 * log_sigmoid(-t * a) - 0.5 * log_sigmoid(-t * b),
    "robust": lambda a, b, t, n, m: (
        (-(1 - EPS) * log_sigmoid(t * (a - b)) + EPS * log_sigmoid(t * (b - a))) / (1 - 2 * EPS)
    ),
    "bco_pair": lambda a, b, t, n, m: -log_sigmoid(t * a) - log_sigmoid(-t * b),
    "sppo_hard": lambda a, b, t, n, m: (a - 1 / (2 * t)) ** 2 + (b + 1 / (2 * t)) ** 2,
    "apo_zero": lambda a, b, t, n, m: 1 - sigmoid(t * a) + sigmoid(t * b),
    "apo_down": lambda a, b, t, n, m: sigmoid(t * a) + 1 - sigmoid(t * (a - b)),
    "discopop": lambda a, b, t, n, m: (
        (1 - sigmoid(t * (a - b) / 0.05)) * -log_sigmoid(t * (a - b))
        + sigmoid(t * (a - b) / 0.05) * math.exp(-t * (a - b))
    ),
}


def test_dpo_by_hand():
    """Chosen rose by 2 nats, rejected fell by 1; beta 0.5: x = 0.5 (2 + 1) = 1.5, -log sigma(1.5) = log(1 + e^-1.5)
    = 0.2014133; rewards 0.5 * 2 = 1 and 0.5 * -1 = -0.5.
    """
    out = dpo(f64(-10), f64(-21), f64(-12), f64(-20), beta=0.5)
    assert_close(out.losses, f64(0.2014133), rtol=0, atol=1e-7)
    assert (float(out.chosen_rewards), float(out.rejected_rewards), float(out.margins)) == (1.0, -0.5, 1.5)


def test_label_smoothing_by_hand():
    """x = 1.5, eps 0.1: 0.9 * 0.2014133 + 0.1 * 1.7014133 = 0.3514133."""
    out = dpo(f64(-10), f64(-21), f64(-12), f64(-20), beta=0.5, label_smoothing=0.1)
    assert_close(out.losses, f64(0.3514133), rtol=0, atol=1e-7)


def test_smoothing_has_its_optimum_at_one_minus_eps():
    """d/dx of the smoothed loss is 0 where sigma(x) = 1 - eps = 0.8: x = log 4."""
    chosen = f64(math.log(4)).requires_grad_()
    dpo(chosen, f64(0), f64(0), f64(0), beta=1.0, label_smoothing=0.2).losses.sum().backward()
    assert float(chosen.grad) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("kind", SCALAR)
def test_each_loss_is_its_scalar_formula(kind):
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = batch()
    ours = dpo(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=0.05, kind=kind, **options(kind)).losses
    a, b = (policy_chosen - ref_chosen).tolist(), (policy_rejected - ref_rejected).tolist()
    lengths = zip(LENGTHS["chosen_lengths"].tolist(), LENGTHS["rejected_lengths"].tolist())
    expected = [SCALAR[kind](x, y, 0.05, n, m) for x, y, (n, m) in zip(a, b, lengths)]
    assert_close(ours, f64(*expected), rtol=1e-12, atol=1e-12)


def test_no_loss_is_without_a_formula():
    assert set(available()) == set(SCALAR) | {"aot", "aot_unpaired"}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("sigmoid", math.log(2)),
        ("sigmoid_norm", math.log(2)),
        ("hinge", 1),
        ("ipo", 1 / (4 * 0.2**2)),
        ("exo_pair", kl((0.5, 0.5), (1 - EPS, EPS))),
        ("nca_pair", 2 * math.log(2)),
        ("robust", math.log(2)),
        ("bco_pair", 2 * math.log(2)),
        ("sppo_hard", 1 / (2 * 0.2**2)),
        ("aot", math.log(2)),
        ("aot_unpaired", math.log(2)),
        ("apo_zero", 1),
        ("apo_down", 1),
        ("discopop", 0.5 * math.log(2) + 0.5),
    ],
)
def test_value_at_the_reference(kind, value):
    chosen, rejected, *_ = batch()
    out = dpo(chosen, rejected, chosen, rejected, beta=0.2, kind=kind, **options(kind))
    assert_close(out.losses, torch.full((5,), value, dtype=torch.float64))
    assert float(out.margins.abs().max()) == 0


def test_gradient_at_the_reference_is_half_beta():
    chosen, rejected, *_ = [values.requires_grad_() for values in batch()]
    dpo(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.2).losses.sum().backward()
    assert_close(chosen.grad, torch.full((5,), -0.1, dtype=torch.float64))
    assert_close(rejected.grad, torch.full((5,), 0.1, dtype=torch.float64))


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_by_finite_differences(kind):
    values = batch(seed=3, scale=4.0)

    def losses(chosen, rejected):
        return dpo(chosen, rejected, values[2], values[3], beta=0.1, kind=kind, **options(kind)).losses

    assert torch.autograd.gradcheck(losses, [value.clone().requires_grad_() for value in values[:2]])


@pytest.mark.parametrize("kind", sorted(set(LOSSES) - {"apo_down", "discopop"}))
def test_from_the_reference_chosen_answers_rise_and_rejected_ones_fall(kind):
    chosen, rejected, *_ = [values.requires_grad_() for values in batch()]
    out = dpo(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.1, kind=kind, **options(kind))
    out.losses.sum().backward()
    assert bool((chosen.grad < 0).all())
    assert bool((rejected.grad > 0).all())


@pytest.mark.parametrize(
    ("kind", "slopes"),
    [("apo_down", (0.0, 0.25)), ("discopop", (-0.75 + 5 * (1 - math.log(2)), 0.75 - 5 * (1 - math.log(2))))],
)
def test_the_two_losses_that_start_otherwise(kind, slopes):
    """apo_down: sigma'(0) - sigma'(0) = 0 on the chosen answer, 1/4 on the rejected one.

    discopop with tau 0.05: -(1/2)(1/2) - 1/2 + w'(0) (1 - log 2), w'(0) = 1/(4 tau) = 5: 0.784 > 0. At the reference it
    pushes the *wrong* way, into a local minimum at small negative margins.
    """
    chosen, rejected = f64(-3).requires_grad_(), f64(-4).requires_grad_()
    dpo(chosen, rejected, f64(-3), f64(-4), beta=1.0, kind=kind).losses.sum().backward()
    assert (float(chosen.grad), float(rejected.grad)) == pytest.approx(slopes, abs=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_moving_policy_and_reference_together_changes_nothing(kind):
    a, b, c, d = batch()
    before = dpo(a, b, c, d, beta=0.1, kind=kind, **options(kind)).losses
    after = dpo(a + 3, b, c + 3, d, beta=0.1, kind=kind, **options(kind)).losses
    if kind == "aot":  # sorted margins of policy and reference shift alike
        after = dpo(a + 3, b, c + 3, d, beta=0.1, kind=kind).losses
    assert_close(after, before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [kind for kind, entry in LOSSES.items() if entry.divergence])
def test_losses_of_the_difference_ignore_a_common_shift(kind):
    a, b, c, d = batch()
    before = dpo(a, b, c, d, beta=0.1, kind=kind, **options(kind)).losses
    assert_close(dpo(a + 5, b + 5, c, d, beta=0.1, kind=kind, **options(kind)).losses, before)


@given(h=st.floats(-50, 50), beta=st.floats(0.01, 5))
def test_swapping_a_pair_negates_its_margin(h, beta):
    """And L(h) - L(-h) = -beta h for the sigmoid loss."""
    one = dpo(f64(h), f64(0), f64(0), f64(0), beta=beta)
    other = dpo(f64(0), f64(h), f64(0), f64(0), beta=beta)
    assert float(one.margins) == -float(other.margins)
    assert float(one.losses - other.losses) == pytest.approx(-beta * h, abs=1e-9)


@given(h=st.floats(-30, 30), eps=st.floats(0, 0.49))
def test_robust_is_unbiased_under_flips(h, eps):
    def robust(x):
        return float(dpo(f64(x), f64(0), f64(0), f64(0), beta=1.0, kind="robust", label_smoothing=eps).losses)

    clean = float(dpo(f64(h), f64(0), f64(0), f64(0), beta=1.0).losses)
    # the two terms are divided by 1 - 2 eps, up to 50
    assert (1 - eps) * robust(h) + eps * robust(-h) == pytest.approx(clean, abs=1e-11)


@given(h=st.floats(-30, 30), eps=st.floats(1e-3, 0.5))
def test_exo_is_a_divergence(h, eps):
    def exo(x):
        return float(dpo(f64(x), f64(0), f64(0), f64(0), beta=1.0, kind="exo_pair", label_smoothing=eps).losses)

    assert exo(h) >= -1e-12
    assert exo(math.log((1 - eps) / eps)) == pytest.approx(0, abs=1e-12)


def test_optima():
    """ipo: h = 1/(2 beta) = 5; sppo: a = 5, b = -5; hinge: nothing beyond x = 1; nca: chosen at sigma(beta a) = 2/3."""
    zero = f64(0)
    assert float(dpo(f64(2), f64(-3), zero, zero, beta=0.1, kind="ipo").losses) == pytest.approx(0)
    assert float(dpo(f64(5), f64(-5), zero, zero, beta=0.1, kind="sppo_hard").losses) == pytest.approx(0)
    for kind, value in (("hinge", 10.5), ("nca_pair", math.log(2) / 0.1)):
        chosen = f64(value).requires_grad_()
        dpo(chosen, zero, zero, zero, beta=0.1, kind=kind).losses.sum().backward()
        assert float(chosen.grad) == pytest.approx(0, abs=1e-12)


def test_aot_by_hand():
    """Policy margins 3, -1 sorted -1, 3; reference margins 0, 2 sorted 0, 2: d = -1, 1, whoever they belong to."""
    out = dpo(f64(3, -1), f64(0, 0), f64(0, 2), f64(0, 0), beta=1.0, kind="aot")
    assert_close(out.losses, f64(math.log1p(math.e), math.log1p(math.exp(-1))))


def test_aot_unpaired_by_hand():
    """A = 3, -3 sorted -3, 3; b = 1, 0 sorted 0, 1: d = -3, 2."""
    out = dpo(f64(3, -3), f64(1, 0), f64(0, 0), f64(0, 0), beta=1.0, kind="aot_unpaired")
    assert_close(out.losses, f64(math.log1p(math.exp(3)), math.log1p(math.exp(-2))))


@pytest.mark.parametrize("kind", ["aot", "aot_unpaired"])
def test_aot_of_one_pair_is_the_smoothed_sigmoid_loss(kind):
    values = [value[:1] for value in batch()]
    ours = dpo(*values, beta=0.1, kind=kind, label_smoothing=0.2).losses
    assert_close(ours, dpo(*values, beta=0.1, label_smoothing=0.2).losses)


def test_averages_and_lengths():
    """Equal lengths n: sigmoid_norm at beta is sigmoid at beta / n. ipo with lengths is ipo of averages."""
    a, b, c, d = batch()
    four = torch.full((5,), 4)
    lengths = {"chosen_lengths": four, "rejected_lengths": four}
    ours = dpo(a, b, c, d, beta=2.0, kind="sigmoid_norm", **lengths).losses
    assert_close(ours, dpo(a, b, c, d, beta=0.5).losses)
    assert_close(
        dpo(a, b, c, d, beta=0.1, kind="ipo", **lengths).losses,
        dpo(a / 4, b / 4, c / 4, d / 4, beta=0.1, kind="ipo").losses,
    )


def test_mix_is_the_weighted_sum():
    """MPO: 0.8 sigmoid + 0.2 bco_pair."""
    values = batch()
    mixed = dpo(*values, beta=0.1, kind={"sigmoid": 0.8, "bco_pair": 0.2}).losses
    parts = [dpo(*values, beta=0.1, kind=kind).losses for kind in ("sigmoid", "bco_pair")]
    assert_close(mixed, 0.8 * parts[0] + 0.2 * parts[1])


def test_reference_weight():
    """DPO^gamma: 1 is DPO, 0 needs no reference; 1/2 subtracts half of the reference's margin: x = 4 - 0.5 * 2 = 3."""
    a, b, *_ = batch()
    assert_close(dpo(a, b, None, None, beta=0.1, reference_weight=0.0).losses, dpo(a, b, 0 * a, 0 * b, beta=0.1).losses)
    half = dpo(f64(4), f64(0), f64(2), f64(0), beta=1.0, reference_weight=0.5).losses
    assert_close(half, f64(math.log1p(math.exp(-3))))


def test_baseline_of_bco_by_hand():
    """Beta a - delta = 1 - 0.25, beta b - delta = -0.5 - 0.25: log(1 + e^-0.75) twice; no gradient to delta."""
    delta = f64(0.25)[0].requires_grad_()
    out = dpo(f64(2).requires_grad_(), f64(-1), f64(0), f64(0), beta=0.5, kind="bco_pair", baseline=delta)
    assert_close(out.losses.detach(), f64(2 * math.log1p(math.exp(-0.75))))
    out.losses.sum().backward()
    assert delta.grad is None


def test_weights_are_constants():
    a, b, c, d = batch()
    weights = torch.rand(5, dtype=torch.float64).requires_grad_()
    out = dpo(a.requires_grad_(), b, c, d, beta=0.1, kind="hinge", weights=weights)
    assert_close(out.losses, weights.detach() * dpo(a, b, c, d, beta=0.1, kind="hinge").losses)
    out.losses.sum().backward()
    assert weights.grad is None


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extremes_are_finite_in_float32(kind, dtype):
    """Differences up to 20,000 nats in either direction, in any dtype; results and gradients are float32 and finite."""
    chosen = torch.tensor([-10000.0, 0.0, -10000.0, 0.0, -1.0], dtype=dtype).requires_grad_()
    rejected = torch.tensor([0.0, -10000.0, -10000.0, 0.0, -1.0], dtype=dtype).requires_grad_()
    ref = torch.tensor([10000.0, -10000.0, 10000.0, -10000.0, -1.0], dtype=dtype)
    out = dpo(chosen, rejected, ref, ref.flip(0), beta=1.0, kind=kind, **options(kind))
    out.losses.sum().backward()
    assert out.losses.dtype == torch.float32
    assert bool(out.losses.isfinite().all())
    assert bool(chosen.grad.isfinite().all())
    assert bool(rejected.grad.isfinite().all())


def test_half_precision_inputs_are_raised_before_they_are_subtracted():
    """-256 and -255 are bfloat16 numbers, their loss at beta 0.01 is not: log(1 + e^-0.01) = 0.688160."""
    inputs = [torch.tensor([value], dtype=torch.bfloat16) for value in (-255.0, -256.0, -256.0, -256.0)]
    assert float(dpo(*inputs, beta=0.01).losses) == pytest.approx(math.log1p(math.exp(-0.01)), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "sigmiod"}, "Did you mean `sigmoid`"),
        ({"beta": 0.0}, "`beta` must be above 0"),
        ({"label_smoothing": 0.7}, "swap chosen and rejected"),
        ({"kind": "exo_pair"}, "above 0"),
        ({"kind": "robust", "label_smoothing": 0.5}, "labels say nothing"),
        ({"kind": "hinge", "label_smoothing": 0.1}, "has no use for label_smoothing"),
        ({"kind": {"sigmoid": 1.0, "nca_pair": 1.0}, "label_smoothing": 0.1}, "`nca_pair` has no use"),
        ({"kind": "sigmoid_norm"}, "pass chosen_lengths"),
        ({"kind": "sigmoid", **LENGTHS}, "reads lengths"),
        ({"kind": "ipo", "chosen_lengths": torch.ones(5)}, "belong together"),
        ({"kind": "ipo", "chosen_lengths": torch.zeros(5), "rejected_lengths": torch.ones(5)}, "below 1"),
        ({"kind": "ipo", "divergence": "js", **LENGTHS}, "do not go together"),
        ({"kind": "bco_pair", "divergence": "js"}, "has no use for the divergence"),
        ({"kind": "aot", "weights": torch.ones(5)}, "has no use for weights"),
        ({"kind": {}}, "mix of losses is empty"),
        ({"divergence": "kl"}, "no divergence"),
        ({"kind": "discopop", "temperature": 0.0}, "`temperature` must be above 0"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dpo(*batch(), **{"beta": 0.1, **arguments})


def test_a_missing_reference_is_refused():
    a, b, *_ = batch()
    with pytest.raises(ValueError, match="reference_weight=0"):
        dpo(a, b, None, None, beta=0.1)
