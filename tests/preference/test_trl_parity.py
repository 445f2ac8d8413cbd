"""Whole trainers against ours: three AdamW steps of TRL 1.16 and of our loop from the same weights and pairs.

DPOTrainer for the losses that it shares with us, CPOTrainer (experimental there) for SimPO. Both are run as their users
run them; only the order of the pairs is fixed. Loss, rewards and weights must agree after every step.
"""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.utils.data import SequentialSampler

from align.config.shared import OptimizerConfig, OutputConfig, TrainingConfig
from align.engine.adapters import Policy
from align.engine.distributed import Processes, start_accelerator
from align.engine.folder import RunFolder
from align.engine.loop import train
from align.engine.run import Run
from align.engine.settings import RunSettings
from preference.config import DpoConfig, PairsConfig, SimpoConfig
from preference.data import read_pairs
from preference.dpo import Dpo
from preference.pair_method import PairParts
from preference.reference import ReferenceTable, complete
from preference.sampler import StepPairs
from preference.simpo import Simpo
from preference.stored_pairs import StoredPairs
from preference.tokenise import tokenise_pairs
from preference.trl import cpo_trainer, dpo_trainer

from .pair_data import scorer_of, token_pairs
from .tokenizers import network, qwen_like

STEPS, PAIRS, RATE = 3, 4, 3e-3
TEXTS = [
    {
        "prompt": [{"role": "user", "content": f"the cat {'in ' * (row % 4)}{row}"}],
        "chosen": [{"role": "assistant", "content": "ok the cat " * (1 + row % 3)}],
        "rejected": [{"role": "assistant", "content": "a in " * (1 + (row * 7) % 4)}],
    }
    for row in range(STEPS * PAIRS)
]
PLAIN = [
    {"prompt": row["prompt"][0]["content"], **{k: " " + row[k][0]["content"].strip() for k in ("chosen", "rejected")}}
    for row in TEXTS
]


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def model_and_tokenizer():
    tokenizer = qwen_like()
    return network("llama", tokenizer), tokenizer


class InOrder:
    """Pairs in the order of the file."""

    def __call__(self, step):
        rows = torch.arange((step - 1) * PAIRS, step * PAIRS)
        return StepPairs(rows=rows, index=torch.arange(PAIRS), updates=1)


def theirs(trainer_class, config_class, rows, folder, ref_model=None, **settings):
    """(loss of each step, logged metrics of each step, final weights, the trainer)."""
    from datasets import Dataset

    model, tokenizer = model_and_tokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = config_class(
            output_dir=str(folder),
            per_device_train_batch_size=PAIRS,
            max_steps=STEPS,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **settings,
        )
        more = {} if ref_model is None else {"ref_model": ref_model}
        trainer = trainer_class(
            model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **more
        )
        trainer._get_train_sampler = SequentialSampler
        losses, whole = [], trainer.compute_loss

        def recorded(*args, **kwargs):
            out = whole(*args, **kwargs)
            losses.append(float((out[0] if isinstance(out, tuple) else out).detach()))
            return out

        trainer.compute_loss = recorded
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "rewards/margins" in entry]
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    return SimpleNamespace(losses=losses, logged=logged, weights=weights, data=trainer.train_dataset)


def ours(method, config, data, folder):
    """The same of our loop."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = start_accelerator()
    processes = Processes(accelerator)
    policy = Policy.full(model_and_tokenizer()[0])
    scorer = scorer_of(policy, StoredPairs(data=data))
    output = OutputConfig(directory=str(folder), name="ours", trackers=(), images_every=0)
    settings = RunSettings(
        optimizer=OptimizerConfig(learning_rate=RATE, weight_decay=0.0),
        training=TrainingConfig(steps=STEPS, micro_batch_size=PAIRS, ema=None),
        output=output,
    )
    run = Run(accelerator, RunFolder.create(output, default_name="ours", processes=processes), policy, settings)
    pairs = StoredPairs(data=data)
    if config.reads_reference():
        rows = torch.arange(len(pairs))
        empty = ReferenceTable.empty()
        table = complete(empty, pairs.groups, rows, scorer=scorer, processes=processes, batch_size=PAIRS)
        pairs = StoredPairs(data=data, reference=table)
    lines = []
    train(
        run, recording(method(config, PairParts(pairs=pairs, sampler=InOrder(), scorer=scorer, policy=policy)), lines)
    )
    weights = {name: weight.detach().clone() for name, weight in policy.trainable_parameters().items()}
    return SimpleNamespace(lines=lines, weights=weights)


def recording(method, lines):
    """The method; what it says of each micro-batch (one a step here) is kept."""
    whole = method.loss

    def loss(micro):
        out = whole(micro)
        lines.append({"loss": float(out.loss.detach()), **{k: float(v) for k, v in out.metrics.items()}})
        return out

    method.loss = loss
    return method


def compare(their, our, names):
    """float32 in another order of summation; a step of AdamW is 3e-3, so weights are compared to a hundredth of it."""
    assert len(their.losses) == len(our.lines) == STEPS
    assert [line["loss"] for line in our.lines] == pytest.approx(their.losses, rel=2e-4, abs=2e-5)
    for name in names:
        expected = [entry[name] for entry in their.logged]
        assert [line[name] for line in our.lines] == pytest.approx(expected, rel=2e-3, abs=2e-4), name
    moved = 0.0
    start = dict(model_and_tokenizer()[0].named_parameters())
    for name, weight in their.weights.items():
        torch.testing.assert_close(our.weights[name], weight, rtol=0, atol=3e-5)
        moved = max(moved, float((weight - start[name].detach()).abs().max()))
    assert moved > RATE  # otherwise the comparison would be of two models that stood still


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("sigmoid", {}),
        ("hinge", {}),
        ("ipo", {}),
        ("robust", {"label_smoothing": 0.1}),
        ("apo_zero", {}),
        ("apo_down", {}),
        ("sigmoid_norm", {}),
        ("exo_pair", {"label_smoothing": 0.05}),
        ("nca_pair", {}),
        ("bco_pair", {}),
        ("sppo_hard", {}),
        ("aot", {"label_smoothing": 0.1}),
        ("aot_unpaired", {}),
        ("discopop", {}),
    ],
)
def test_dpo(loss, settings, tmp_path):
    reference, tokenizer = model_and_tokenizer()
    config = DpoConfig(loss=loss, beta=0.5, **settings)
    their = theirs(*dpo_trainer(), TEXTS, tmp_path, copy.deepcopy(reference), loss_type=[loss], beta=0.5, **settings)
    data = tokens_of(TEXTS, tokenizer, tmp_path)
    for row, example in enumerate(their.data):  # before losses: the same tokens in the same places
        for ids, name in ((data.prompt_ids, "prompt_ids"), (data.chosen_ids, "chosen_ids")):
            assert ids[row].tolist() == example[name]
        assert data.rejected_ids[row].tolist() == example["rejected_ids"]
    our = ours(Dpo, config, data, tmp_path)
    compare(their, our, ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"))


@pytest.mark.parametrize("settings", [{}, {"cpo_alpha": 0.5}])
def test_simpo(settings, tmp_path):
    """TRL's `cpo_alpha` is our `sft_weight`; its gamma is beta times ours."""
    beta, ratio = 2.0, 0.4
    options = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": beta, "simpo_gamma": beta * ratio, **settings}
    their = theirs(*cpo_trainer(), PLAIN, tmp_path, **options)
    data = token_pairs(len(PLAIN))
    for row, example in enumerate(their.data):
        data.prompt_ids[row] = torch.tensor(example["prompt_input_ids"])
        for ids, side in ((data.chosen_ids, "chosen"), (data.rejected_ids, "rejected")):
            ids[row] = torch.tensor([token for token in example[f"{side}_labels"] if token != -100])
    assert [ids.tolist() for ids in data.chosen_ids] == [
        ids.tolist() for ids in tokens_of(PLAIN, model_and_tokenizer()[1], tmp_path).chosen_ids
    ]
    config = SimpoConfig(beta=beta, gamma_beta_ratio=ratio, sft_weight=settings.get("cpo_alpha", 0.0))
    our = ours(Simpo, config, data, tmp_path)
    compare(their, our, ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"))


def tokens_of(rows, tokenizer, folder):
    """The rows through our own reading and tokenising."""
    import json

    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = PairsConfig(train=str(path))
    return tokenise_pairs(read_pairs(str(path), settings), tokenizer, settings)
