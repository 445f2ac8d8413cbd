"""Whole pipelines: orders of operations, every kind of the settings, state, names that are not there."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.config import shaping as s
from align.config.group_relative import DrGrpo, FlowGrpo, Grpo
from align.config.pipeline import PipelineConfig
from align.shaping.describe import variance_shares
from align.shaping.pipeline import SignalPipeline
from align.shaping.stages import COMBINATIONS, REFERENCES, TRANSFORMS
from align.shaping.table import equal_rows_agree
from align.types import RewardTable

NAN = math.nan
NAMES = ("a", "b", "c")
IDS = torch.tensor([3, 8, 3, 8, 3, 8, 3, 8])
GDPO = PipelineConfig(
    transforms=(s.ZScore(eps=0.0),), combine=s.WeightedSum(missing="skip"), base=Grpo(scale="batch", eps=0.0), clip=None
)
SUM = PipelineConfig(base=Grpo(eps=0.0), clip=None)


def table(values, weights=(1.0, 1.0, 0.0), names=NAMES):
    values = torch.as_tensor(values)
    return RewardTable(names=names[: values.shape[1]], values=values, weights=torch.tensor(weights[: values.shape[1]]))


def rewards(seed=0, n=8, k=3):
    return torch.rand(n, k, generator=torch.Generator().manual_seed(seed)) + 0.1


def test_the_two_orders_by_hand():
    """Two binary rewards, two groups of two; in the first group one of them varies, in the second both.

    Sum, then group z-score: +-0.7071 in both groups. Normalise, then sum: P = +-0.7071 and +-1.4142; the batch's std is
    sqrt((2 * 0.5 + 2 * 2) / 3) = 1.291: +-0.5477 and +-1.0954.
    """
    t, ids = table([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 0, 1, 1])
    found = SignalPipeline(SUM)(t, ids).advantages
    assert found.tolist() == pytest.approx([-0.70711, 0.70711, -0.70711, 0.70711], abs=1e-5)
    found = SignalPipeline(GDPO)(t, ids).advantages
    assert found.tolist() == pytest.approx([-0.54772, 0.54772, -1.09545, 1.09545], abs=1e-5)


def test_a_constant_total_cancels():
    """u_2 = 1 - u_1: the z-scores are opposite, and equal weights cancel to nothing."""
    first = torch.tensor([0.0, 1.0, 1.0, 0.0])
    found = SignalPipeline(GDPO)(table(torch.stack([first, 1 - first], dim=1)), torch.tensor([0, 0, 1, 1]))
    assert (found.advantages == 0).all()


@given(seed=st.integers(0, 50), scale=st.floats(0.25, 4), shift=st.floats(-2, 2))
def test_what_each_order_ignores(seed, scale, shift):
    """The sum: one constant per group and reward, one common factor. GDPO: any unit of any reward, per group."""
    values = rewards(seed).double()
    moved = values.clone()
    moved[IDS == 3, 0] += shift
    before, after = (SignalPipeline(SUM)(table(v), IDS).advantages for v in (values, scale * moved))
    assert_close(after, before, rtol=1e-4, atol=1e-4)
    moved = values.clone()
    moved[IDS == 3, 0] = scale * values[IDS == 3, 0] + shift
    before, after = (SignalPipeline(GDPO)(table(v), IDS).advantages for v in (values, moved))
    assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert abs(float(before.sum())) < 1e-4


def slow_gdpo(values, weights, ids):
    """Normalise, then sum, written with lists: n - 1, no eps, gaps left out, rows without any score excluded."""
    n, k = len(values), len(weights)
    z = [[None] * k for _ in range(n)]
    for group in set(ids):
        rows = [i for i in range(n) if ids[i] == group]
        for j in range(k):
            scored = [i for i in rows if not math.isnan(values[i][j])]
            mean = sum(values[i][j] for i in scored) / max(len(scored), 1)
            var = sum((values[i][j] - mean) ** 2 for i in scored) / max(len(scored) - 1, 1)
            for i in scored:
                z[i][j] = (values[i][j] - mean) / math.sqrt(var) if var > 0 else 0.0
    sums = [None if all(x is None for x in row) else sum(w * (x or 0.0) for w, x in zip(weights, row)) for row in z]
    kept = [x for x in sums if x is not None]
    mean = sum(kept) / len(kept)
    std = math.sqrt(sum((x - mean) ** 2 for x in kept) / (len(kept) - 1))
    return [0.0 if x is None else (x - mean) / std for x in sums]


def test_gdpo_with_gaps_against_a_loop():
    values = rewards(4).double()
    values[0, 0] = values[3, 1] = values[5, 0] = values[5, 1] = NAN
    found = SignalPipeline(GDPO)(table(values, (0.3, 0.7, 0.0)), IDS).advantages
    expected = slow_gdpo(values[:, :2].tolist(), (0.3, 0.7), IDS.tolist())
    assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_one_reward_gdpo_is_grpo_and_then_the_batch():
    values = rewards(1, k=1)
    found = SignalPipeline(GDPO)(table(values, (1.0,)), IDS).advantages
    grpo = SignalPipeline(SUM)(table(values, (1.0,)), IDS).advantages
    assert_close(found, grpo / grpo.std(), rtol=1e-5, atol=1e-6)


TRANSFORM_CASES = [
    s.Affine(scale=-2.0),
    s.ZScore(),
    s.ZScore(scope="running"),
    s.RobustZScore(),
    s.MinMax(),
    s.Rank(),
    s.Clip(high=0.9),
    s.Tanh(),
    s.Threshold(at_least=0.5),
    s.LogProb(),
    s.Lsc(),
    s.Lsc(reference=s.ReferenceConstant(value=0.5)),
    s.Lsc(reference=s.ReferenceColumn(column="c")),
    s.Lsc(reference=s.ReferenceCanonical(column="c")),
    s.Lsc(reference=s.ReferencePrompt(samples=3)),
    s.Lsc(reference=s.ReferenceGroup()),
    s.Par(columns=("c",)),
    s.ReferenceQuantile(columns=("c",)),
    s.LengthPenalty(length="c", free=0.5, per_unit=1.0),
    s.Impute(),
    s.Gate(rewards=("b",), on="a", at_least=0.5),
]
COMBINE_CASES = [
    s.WeightedSum(),
    s.WeightedSum(missing="renormalise"),
    s.Directional(),
    s.SoftMin(),
    s.Chebyshev(),
    s.Nash(),
    s.PowerMean(),
    s.Gated(gate="a", at_least=0.5),
    s.Lexicographic(order=("b", "a")),
]
WEIGHT_CASES = [
    s.FixedWeights(),
    s.ScheduledWeights(ramps=(s.Ramp(reward="b", start=0.0, end=1.0, steps=4),)),
    s.DirectionWeights(components=(s.Component(reward="a", value=3.0), s.Component(reward="b", value=4.0))),
    s.ConstraintWeights(constraints=(s.Constraint(reward="b", at_least=0.9),)),
    s.PromptWeights(columns=(s.ColumnWeight(reward="a", column="c"), s.ColumnWeight(reward="b", column="c"))),
]


def test_every_kind_has_a_case():
    assert {type(case) for case in TRANSFORM_CASES} == set(TRANSFORMS)
    assert {type(case) for case in COMBINE_CASES} == set(COMBINATIONS)
    assert {type(case.reference) for case in TRANSFORM_CASES if isinstance(case, s.Lsc)} == set(REFERENCES)


CASES = [PipelineConfig(transforms=(case,)) for case in TRANSFORM_CASES]
CASES += [PipelineConfig(combine=case) for case in COMBINE_CASES]
CASES += [PipelineConfig(weights=case) for case in WEIGHT_CASES]
CASES += [GDPO, PipelineConfig(required=("a",), combine=s.WeightedSum(missing="renormalise"))]


def assert_same(state, other):
    """Numbers and tensors of two checkpoints, bit for bit."""
    assert state.keys() == other.keys()
    assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])) for name, value in state.items())


def prompt_table(seed):
    """Three rewards; the third is the same for all samples of a prompt, so that it can be a weight."""
    values = rewards(seed)
    values[:, 2] = torch.where(IDS == 3, 0.25, 0.75)
    return values


@pytest.mark.parametrize(
    "config", CASES, ids=lambda config: f"{config.transforms} {config.weights} {config.combine}"[:90]
)
def test_rules_of_every_pipeline(config):
    """Rows in another order give the same; an unscored row gets 0 and changes no other; equal rows are worth equal."""
    values = prompt_table(2)
    plain = SignalPipeline(config)(table(values), IDS)
    assert plain.advantages.dtype == torch.float32
    assert plain.advantages.isfinite().all()
    assert all(math.isfinite(value) for value in plain.stats.values())

    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    mixed = SignalPipeline(config)(table(values[order]), IDS[order])
    assert_close(mixed.advantages, plain.advantages[order], rtol=1e-5, atol=1e-6)

    more = torch.cat([values, torch.tensor([[NAN, NAN, 0.25], [math.inf, NAN, 0.25]])])
    ids = torch.cat([IDS, torch.tensor([3, 3])])
    gap = SignalPipeline(config)(table(more), ids)
    assert gap.advantages[8:].tolist() == [0.0, 0.0]
    assert gap.scores[8:].isnan().all()
    assert_close(gap.advantages[:8], plain.advantages, rtol=1e-6, atol=1e-7)

    equal = SignalPipeline(config)(table(values[:1].expand(8, 3).contiguous()), torch.zeros(8, dtype=torch.int64))
    assert (equal.advantages == 0).all()


@pytest.mark.parametrize(
    "config", CASES, ids=lambda config: f"{config.transforms} {config.weights} {config.combine}"[:90]
)
def test_a_resumed_pipeline_goes_on(config):
    pipeline = SignalPipeline(config)
    for seed in range(2):
        pipeline(table(prompt_table(seed)), IDS)
    resumed = SignalPipeline(config)
    resumed.load_state_dict(pipeline.state_dict())
    expected = pipeline(table(prompt_table(9)), IDS)
    found = resumed(table(prompt_table(9)), IDS)
    assert torch.equal(found.advantages, expected.advantages)
    assert_same(resumed.state_dict(), pipeline.state_dict())


@pytest.mark.parametrize(
    "config", CASES, ids=lambda config: f"{config.transforms} {config.weights} {config.combine}"[:90]
)
def test_looking_changes_nothing(config):
    pipeline = SignalPipeline(config)
    pipeline(table(prompt_table(0)), IDS)
    before = pipeline.state_dict()
    pipeline(table(prompt_table(1)), IDS, update=False)
    assert_same(pipeline.state_dict(), before)


def test_metrics_are_left_alone_and_a_named_reward_is_not():
    """Column c has weight 0: a transform of `null` does not touch it, one that names a changes a only."""
    config = PipelineConfig(transforms=(s.Affine(scale=2.0), s.Affine(shift=10.0, rewards=("a",))), base=DrGrpo())
    found = SignalPipeline(config).shaping
    from align.shaping.table import columns_of

    shaped = found(columns_of(table([[1.0, 2.0, 3.0]]), torch.tensor([0])))
    assert shaped.utilities.tolist() == [[12.0, 4.0, 3.0]]
    assert shaped.scores.tolist() == [16.0]


def test_lsc_reference_of_the_start_is_frozen():
    """First step: 0 and 2, mean 1, std sqrt 2 (n - 1), q = 0.85. Later steps use the same number."""
    config = PipelineConfig(transforms=(s.Lsc(),), base=DrGrpo(), clip=None)
    pipeline = SignalPipeline(config)
    reference = 1 + 1.0364334 * math.sqrt(2)
    for values in ([[0.0], [2.0]], [[5.0], [9.0]]):
        found = pipeline(table(values, (1.0,)), torch.tensor([0, 0])).scores
        expected = torch.nn.functional.logsigmoid(torch.tensor(values).flatten() - reference)
        assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert pipeline.state_dict()["transforms.0.a.count"] == 2


def test_schedule_over_steps():
    """b goes from 0 to 1 in two steps: scores a, a + b/2, a + b, a + b."""
    weights = s.ScheduledWeights(ramps=(s.Ramp(reward="b", start=0.0, end=1.0, steps=2),))
    pipeline = SignalPipeline(PipelineConfig(weights=weights))
    t = table([[1.0, 4.0], [2.0, 8.0]], (1.0, 0.0))
    signals = [pipeline(t, torch.tensor([0, 0])) for _ in range(4)]
    assert [signal.scores.tolist() for signal in signals] == [[1.0, 2.0], [3.0, 6.0], [5.0, 10.0], [5.0, 10.0]]
    assert [signal.stats["weights/b"] for signal in signals] == [0.0, 0.5, 1.0, 1.0]


def test_constraint_over_steps():
    """OCR (b) >= 0.9, rate 1: the first step weighs it 0; its mean of 0.5 raises the price to 0.4 for the second."""
    weights = s.ConstraintWeights(constraints=(s.Constraint(reward="b", at_least=0.9, rate=1.0),))
    pipeline = SignalPipeline(PipelineConfig(weights=weights))
    t = table(torch.tensor([[1.0, 0.0], [2.0, 1.0]], dtype=torch.float64), (1.0, 0.0))
    assert pipeline(t, torch.tensor([0, 0])).scores.tolist() == [1.0, 2.0]
    assert pipeline(t, torch.tensor([0, 0])).scores.tolist() == pytest.approx([1.0, 2.4])
    assert pipeline.state_dict() == pytest.approx({"weights.b": 0.8})


def test_filling_a_gap_is_no_score():
    """Row 1 has nothing: imputing must not score it. Row 0 lacks b only: b becomes the group's mean, 4."""
    config = PipelineConfig(transforms=(s.Impute(),))
    t = table([[1.0, NAN], [NAN, NAN], [2.0, 4.0]])
    assert_close(
        SignalPipeline(config)(t, torch.tensor([0, 0, 0])).scores, torch.tensor([5.0, NAN, 6.0]), equal_nan=True
    )


def test_required_rewards():
    t = table([[1.0, NAN], [NAN, 3.0], [2.0, 4.0]])
    config = PipelineConfig(required=("a",), combine=s.WeightedSum(missing="renormalise"))
    found = SignalPipeline(config)(t, torch.tensor([0, 0, 0])).scores
    assert_close(found, torch.tensor([2.0, NAN, 6.0]), equal_nan=True)


def test_variance_shares_by_hand():
    """Parts 0 3 and 0 1, S 0 4: Cov/Var = 3/4 and 1/4. The group of 5 5 does not vary and is left out."""
    parts = torch.tensor([[0.0, 0.0], [3.0, 1.0], [2.0, 3.0], [3.0, 2.0]])
    found = variance_shares(parts, parts.sum(dim=1), torch.tensor([0, 0, 1, 1]))
    assert found.tolist() == [0.75, 0.25]
    assert variance_shares(parts[2:], parts[2:].sum(dim=1), torch.tensor([1, 1])).tolist() == [0.0, 0.0]
    assert variance_shares(parts, -parts.sum(dim=1), torch.tensor([0, 0, 1, 1])).tolist() == [-0.75, -0.25]


def test_equal_rows_agree():
    scores = torch.tensor([1.0, 1.0 + 1e-7, 5.0, 1.0 + 2e-7])
    inputs = torch.tensor([[0.0, NAN], [-0.0, NAN], [1.0, 1.0], [0.0, NAN]], dtype=torch.float64)
    assert equal_rows_agree(scores, inputs, torch.tensor([0, 0, 0, 0])).tolist() == [1.0, 1.0, 5.0, 1.0]
    apart = equal_rows_agree(scores, inputs, torch.tensor([0, 1, 0, 1]))
    assert apart[1] == apart[3] == scores[1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            PipelineConfig(transforms=(s.Rank(rewards=("aa",)),)),
            r"names a reward `aa`. Did you mean `a`\?|There are: a, b",
        ),
        (PipelineConfig(combine=s.Lexicographic(order=("x",))), "names a reward `x`"),
        (PipelineConfig(weights=s.ScheduledWeights(ramps=())), "must name at least one reward"),
        (PipelineConfig(transforms=(s.Par(columns=()),)), "`columns` must name at least one reward"),
        (PipelineConfig(transforms=(s.Affine(scale=0.0),)), "`scale` must not be 0"),
    ],
)
def test_mistakes(config, message):
    with pytest.raises(ValueError, match=message):
        SignalPipeline(config)(table(rewards()), IDS)


def test_bad_tables():
    pipeline = SignalPipeline(PipelineConfig(base=FlowGrpo()))
    with pytest.raises(ValueError, match="the reward table is empty"):
        pipeline(table(torch.zeros(0, 3)), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected one group id per row \(8\), found group_ids of shape \[2\]"):
        pipeline(table(rewards()), IDS[:2])
    with pytest.raises(ValueError, match="weights must not be negative"):
        pipeline(table(rewards(), (1.0, -1.0, 0.0)), IDS)
