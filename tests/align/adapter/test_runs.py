"""Whole runs: a known rule is recovered, no rule is said to be none, resume, early stopping, what is refused."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from align.adapter import commands
from align.adapter.config import RowsConfig, StoppingConfig, TargetConfig
from align.adapter.files import load_adapter, load_normaliser
from align.adapter.pro import Pro
from align.adapter.record import read_record
from align.adapter.use import PromptWeigher
from align.errors import AlignError
from align.shaping.adapter import pro_loss_of_logs

from .stub import OBJECTIVES, WordCounts, adapter_run, write_rows


@pytest.fixture(autouse=True)
def fresh_accelerate(monkeypatch):
    from accelerate.state import AcceleratorState, GradientState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on prompts whose words decide."""
    from accelerate.state import AcceleratorState

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        folder = commands.train(adapter_run(tmp_path_factory.mktemp("adapter")), encoder=WordCounts())
        AcceleratorState._reset_state(True)
    return folder


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_known_rule_is_recovered(trained):
    """Held-out KL far below that of constant weights; new prompts are weighed as the rule says."""
    report = read_record(trained).report
    assert report["rows"] == 30
    assert report["kl"] < 0.2 * report["constant_kl"]
    assert report["has_signal"]
    assert report["gain"]["low"] > 0
    weigher = PromptWeigher.load(trained, encoder=WordCounts())
    asked = ["explain the explain cat explain", "the poison a dog poison poison", "why short cat short short a"]
    weights = weigher.weights_for(asked)
    assert weights.argmax(dim=1).tolist() == [0, 1, 2]
    assert (weights.max(dim=1).values > 0.6).all()


def test_the_curves_are_in_the_run(trained):
    lines = metrics(trained)
    assert lines[0]["step"] == 0
    assert lines[0]["eval/kl"] > lines[-1]["eval/kl"]
    assert lines[-1]["eval/best_kl"] == min(line["eval/kl"] for line in lines if "eval/kl" in line)
    assert (trained / "report.html").is_file()
    assert lines[-1]["loss"] < lines[1]["loss"]


def test_weights_are_on_the_simplex_and_the_loss_has_its_gradient(trained):
    """I13 and I14 on the trained network: sums, shift of the logits, KL 0 only at the target, (w - w*) / (B T)."""
    adapter, record = load_adapter(trained)
    vectors = WordCounts()(["explain the cat", "poison short", ""])
    available = torch.tensor([[True, True, True], [True, False, True], [True, True, True]])
    weights = adapter(vectors, available)
    assert_close(weights.sum(dim=1), torch.ones(3))
    assert weights[1, 1] == 0
    assert ((weights > 0) == available).all()
    logits = adapter.logits(vectors).requires_grad_(True)
    assert_close((logits + 3.0).softmax(dim=1), adapter(vectors))
    targets = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0]])
    loss = pro_loss_of_logs((logits / record.temperature).log_softmax(dim=1), targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss > 0
    assert_close(gradient, (adapter(vectors) - targets) / (3 * record.temperature))
    assert_close(gradient.sum(dim=1), torch.zeros(3), atol=1e-6, rtol=0)
    own = adapter.log_weights(vectors)
    assert abs(pro_loss_of_logs(own, own.exp()).item()) < 1e-6


def test_a_prompt_is_weighed_by_its_text_alone(trained):
    """Bit for bit, whatever stands beside it; equal prompts are encoded once."""
    encoder = WordCounts()
    weigher = PromptWeigher.load(trained, encoder=encoder)
    many = weigher.weights_for(["a cat", "explain", "a cat", "short dog"])
    assert encoder.calls == 3
    assert torch.equal(many[0], many[2])
    assert torch.equal(PromptWeigher.load(trained, encoder=WordCounts()).weights_for(["short dog"])[0], many[3])
    assert list(weigher.by_name(["explain"])) == list(OBJECTIVES)


def test_saved_files_are_plain_and_complete(trained):
    folder = trained / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter.json", "adapter.safetensors"]
    record = read_record(folder)
    assert record.objectives == OBJECTIVES
    assert record.target == {"normaliser": "minmax", "temperature": 0.3, "contrastive": False, "entropy_floor": 0.0}
    assert record.encoder_fingerprint == WordCounts().fingerprint()
    normaliser = load_normaliser(trained)
    assert [len(numbers) for numbers in normaliser.numbers] == [2, 2, 2]
    assert normaliser(torch.tensor([[99.0, 99.0, -1.0]])).tolist() == [[1.0, 1.0, 0.0]]


def test_what_does_not_fit_is_refused(trained, tmp_path):
    with pytest.raises(AlignError, match=r"trained for the objectives helpful, harmless, brief; .* are helpful, tone"):
        PromptWeigher.load(trained, objectives=("helpful", "tone"), encoder=WordCounts())
    PromptWeigher.load(trained, objectives=("brief", "helpful", "harmless"), encoder=WordCounts())
    with pytest.raises(AlignError, match=r"vectors of word counts .* the encoder here is word counts"):
        PromptWeigher.load(trained, encoder=WordCounts(("other",)))
    with pytest.raises(AlignError, match=r"expected an adapter at .*no such folder"):
        PromptWeigher.load(tmp_path / "nothing")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "adapter.json").write_text('{"objectives": ["a", "b"]}')
    with pytest.raises(AlignError, match=r"adapter.json cannot be read"):
        read_record(damaged)
    whole = json.loads((trained / "adapter" / "adapter.json").read_text())
    (damaged / "adapter.json").write_text(json.dumps({**whole, "hidden_size": 5}))
    (damaged / "adapter.safetensors").write_bytes((trained / "adapter" / "adapter.safetensors").read_bytes())
    with pytest.raises(AlignError, match=r"does not hold the adapter that adapter.json describes"):
        load_adapter(damaged)


def test_no_signal_is_said_in_plain_words(tmp_path, capsys):
    """Rewards by chance: the adapter learns the training rows by heart, and does not beat constant weights."""
    config = adapter_run(tmp_path)
    write_rows(tmp_path / "rows.jsonl", 120, rule=False)
    folder = commands.train(config, encoder=WordCounts())
    report = read_record(folder).report
    assert not report["has_signal"]
    assert "The prompts carry no signal that this adapter could find" in capsys.readouterr().out
    steps = [line["step"] for line in metrics(folder)]
    assert steps[-1] < 60  # it was stopped ...
    assert report["step"] <= steps[-1] - 30  # ... three looks after the best
    kept = load_file(folder / "adapter" / "adapter.safetensors")
    last = load_file(folder / "checkpoints" / f"step_{steps[-1]:06d}" / "weights.safetensors")
    assert not torch.equal(kept["adapter.out.bias"], last["out.bias"])


def test_killed_and_resumed_equals_undisturbed(trained, tmp_path, monkeypatch):
    """Power goes in step 33; the run goes on from step 20: the same adapter, bit for bit, and nothing encoded again."""
    config = adapter_run(tmp_path)
    whole = Pro.loss

    class PowerCutError(Exception):
        pass

    def loss(self, micro):
        if steps.count(33):
            raise PowerCutError
        return whole(self, micro)

    steps = []
    collect = Pro.collect
    monkeypatch.setattr(Pro, "collect", lambda self, step: steps.append(step) or collect(self, step))
    monkeypatch.setattr(Pro, "loss", loss)
    with pytest.raises(PowerCutError):
        commands.train(config, encoder=WordCounts())
    monkeypatch.undo()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    encoder = WordCounts()
    folder = commands.train(config, resume=tmp_path / "runs" / "run", encoder=encoder)
    assert encoder.calls == 0
    ours, theirs = (load_file(run / "adapter" / "adapter.safetensors") for run in (folder, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [line["loss"] for line in metrics(folder)[1:]] == [line["loss"] for line in metrics(trained)[1:]]


def test_contrastive_rows_without_held_out_rows(tmp_path):
    """Preferred minus rejected; without held-out rows the last weights are kept and nobody claims a signal."""
    config = adapter_run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for line in lines:
        line["rejected_rewards"] = dict.fromkeys(OBJECTIVES, 0.5)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    folder = commands.train(
        replace(
            config,
            data=RowsConfig(train=config.data.train, heldout_share=0.0, prompts_per_step=500),
            target=TargetConfig(contrastive=True, temperature=0.5, normaliser="zscore", entropy_floor=0.1),
            training=replace(config.training, steps=3),
            optimizer=replace(config.optimizer, warmup_updates=0),
            stopping=StoppingConfig(),
        ),
        encoder=WordCounts(),
    )
    report = read_record(folder).report
    assert report["gain"] is None
    assert not report["has_signal"]
    assert report["step"] == 3
    last = load_file(folder / "checkpoints" / "step_000003" / "weights.safetensors")
    assert torch.equal(load_file(folder / "adapter" / "adapter.safetensors")["adapter.out.bias"], last["out.bias"])
