"""The losses that TRL shares, against TRL's own trainers: their loss methods run on numbers of ours, without a model.

They read a trainer's attributes and a model's outputs; both are stand-ins here (TRL 1.16). Should TRL move its losses,
this file goes, and the scalar formulas of `test_dpo.py` remain.
"""

import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from preference.losses import available, dpo, ld_log_probs, negative_log_likelihood, simpo, wpo_weights

BETA = 0.3


@pytest.fixture(scope="module")
def trainer_class():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.trainer.dpo_trainer import DPOTrainer
    return DPOTrainer


class Batch:
    """Three pairs of answers of 2 to 6 tokens behind a prompt of one token; chosen rows first, as TRL stacks them."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.tensor([3, 6, 2, 5, 2, 4])
        self.mask = torch.arange(6) < lengths[:, None]
        self.log_probs = torch.where(self.mask, -3 * torch.rand(6, 6, generator=generator), 0.0).requires_grad_()
        self.ref = (-9 * torch.rand(6, generator=generator)).chunk(2)
        self.log_sum_squares = -torch.rand(6, 6, generator=generator)
        self.lengths = lengths.chunk(2)

    @property
    def sums(self):
        return self.log_probs.sum(dim=1).chunk(2)


def trl_loss(trainer_class, batch, kinds=("sigmoid",), weights=(1.0,), ref=None, **settings):
    outputs = SimpleNamespace(
        log_probs=batch.log_probs,
        log_sum_sq_probs=batch.log_sum_squares,
        entropy=torch.zeros(6, 6),
        mean_logits=torch.zeros(6, 6),
        is_top1=torch.zeros(6, 6, dtype=torch.bool),
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        args=SimpleNamespace(discopop_tau=0.05),
        loss_types=list(kinds),
        loss_weights=list(weights),
        beta=BETA,
        precompute_ref_logps=True,
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **{
            "label_smoothing": 0.0,
            "ld_alpha": None,
            "f_divergence_type": "reverse_kl",
            "f_alpha_divergence_coef": 0.5,
            "use_weighting": False,
            **settings,
        },
    )
    ref_chosen, ref_rejected = batch.ref if ref is None else ref
    prompt = torch.zeros(6, 1, dtype=torch.int64)
    inputs = {
        "input_ids": torch.ones(6, 7, dtype=torch.int64),
        "attention_mask": torch.cat([prompt + 1, batch.mask.long()], dim=1),
        "completion_mask": torch.cat([prompt, batch.mask.long()], dim=1),
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    return trainer_class._compute_loss(trainer, lambda **_: outputs, inputs, False)


def ours(batch, **options):
    return dpo(*batch.sums, *batch.ref, beta=BETA, **options).losses.mean()


def compare(batch, expected, found):
    assert_close(found, expected, rtol=1e-5, atol=1e-6)  # float32 sums in another order
    gradients = [torch.autograd.grad(loss, batch.log_probs, retain_graph=True)[0] for loss in (expected, found)]
    assert_close(torch.where(batch.mask, gradients[1], 0.0), torch.where(batch.mask, gradients[0], 0.0))


@pytest.mark.parametrize("kind", available())
def test_each_shared_loss(trainer_class, kind):
    batch = Batch()
    smoothing = 0.1 if kind in ("robust", "aot", "aot_unpaired", "exo_pair") else 0.0
    lengths = {}
    if kind in ("ipo", "sigmoid_norm"):
        lengths = dict(zip(("chosen_lengths", "rejected_lengths"), batch.lengths))
    expected = trl_loss(trainer_class, batch, (kind,), label_smoothing=smoothing)
    compare(batch, expected, ours(batch, kind=kind, label_smoothing=smoothing, **lengths))


@pytest.mark.parametrize("name", ["forward_kl", "js", "alpha"])
def test_each_divergence(trainer_class, name):
    batch = Batch(1)
    theirs = name if name == "forward_kl" else f"{name}_divergence"
    compare(batch, trl_loss(trainer_class, batch, f_divergence_type=theirs), ours(batch, divergence=name))


def test_mix_with_the_likelihood_term(trainer_class):
    """MPO: 0.8 sigmoid + 0.2 bco_pair + sft."""
    batch = Batch(2)
    expected = trl_loss(trainer_class, batch, ("sigmoid", "bco_pair", "sft"), (0.8, 0.2, 1.0))
    chosen, mask = batch.log_probs.chunk(2)[0], batch.mask.chunk(2)[0]
    found = ours(batch, kind={"sigmoid": 0.8, "bco_pair": 0.2}) + negative_log_likelihood(chosen, mask)
    compare(batch, expected, found)


def test_shortened_sums(trainer_class):
    batch = Batch(3)
    expected = trl_loss(trainer_class, batch, ld_alpha=0.25)
    sums = ld_log_probs(*batch.log_probs.chunk(2), *batch.mask.chunk(2), alpha=0.25)
    compare(batch, expected, dpo(*sums, *batch.ref, beta=BETA).losses.mean())


def test_weights_of_wpo(trainer_class):
    """Without the cap, which TRL does not have."""
    batch = Batch(4)
    sides = (*batch.log_probs.chunk(2), *batch.log_sum_squares.chunk(2), *batch.mask.chunk(2))
    expected = trl_loss(trainer_class, batch, use_weighting=True)
    compare(batch, expected, ours(batch, weights=wpo_weights(*sides, cap=None)))


@pytest.mark.parametrize(("smoothing", "alpha"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3)])
def test_simpo_against_cpo(smoothing, alpha):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo.cpo_trainer import CPOTrainer
    averages = [sums / lengths for sums, lengths in zip(Batch(5).sums, Batch(5).lengths)]
    trainer = SimpleNamespace(
        alpha=alpha,
        accelerator=SimpleNamespace(device="cpu"),
        loss_type="simpo",
        simpo_gamma=0.7,
        beta=2.0,
        label_smoothing=smoothing,
    )
    expected = CPOTrainer.cpo_loss(trainer, *averages)
    found = simpo(*averages, beta=2.0, gamma_beta_ratio=0.35, label_smoothing=smoothing, alpha=alpha)
    for one, other in zip(found, expected):
        assert_close(one, other, rtol=1e-5, atol=1e-5)
