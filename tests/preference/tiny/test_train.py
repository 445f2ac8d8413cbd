"""The training of the embedded language model: schedule and mask by hand, and steps that learn."""

import json

import pytest
import torch

from preference.tiny import build, conversations, train, train_model
from preference.tiny.train_model import Plan, Trainer


@pytest.mark.parametrize(("progress", "factor"), [(0.03, 1.0), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0)])
def test_learning_rate_worked_by_hand(progress, factor) -> None:
    """Plateau to half of the budget, then a line to zero: (1 - 0.75) / (1 - 0.5) = 1/2."""
    assert train_model.learning_rate_factor(progress) == pytest.approx(factor)


def test_the_mask_is_what_the_assistant_writes() -> None:
    """Roles 3 (system), 4 (user), 5 (assistant); 2 ends a turn, 0 is padding. Answers are 7 2, and 8 9 2."""
    ids = torch.tensor([[1, 4, 6, 2, 5, 7, 2, 4, 6, 2, 5, 8, 9, 2, 0]])
    mask = train_model.answer_mask(ids, torch.tensor([3, 4, 5]), 5, 0)
    assert mask[0].nonzero().flatten().tolist() == [5, 6, 11, 12, 13]


@pytest.fixture(scope="module")
def tokenizer():
    return build.tokenizer(conversations.tokenizer_texts(200, seed=0))


def test_steps_on_one_batch_lower_its_loss(tokenizer) -> None:
    plan = Plan(minutes=1, stage="truth", batch_size=4)
    trainer = Trainer(tokenizer, build.network(tokenizer), plan)
    ids = next(train_model.batches(tokenizer, plan))
    assert len(ids) == 4
    losses = [trainer.update(ids, 0.1)["loss"] for _ in range(4)]
    assert losses[-1] < losses[0] - 0.5
    assert set(trainer.ema) == {name for name, _ in trainer.network.named_parameters()}


def test_the_loss_is_the_mean_over_answer_tokens_worked_slowly(tokenizer) -> None:
    """One conversation at a time, one token at a time, from the network's own logits."""
    plan = Plan(minutes=1, stage="slips", batch_size=3)
    network = build.network(tokenizer).double()
    ids = next(train_model.batches(tokenizer, plan))
    total, count = 0.0, 0
    for row in ids:
        mask = train_model.answer_mask(row[None], torch.tensor([3, 4, 5]), 5, 0)[0]
        length = int((row != 0).sum())
        log_probs = network(input_ids=row[None, :length]).logits[0].log_softmax(dim=-1)
        for place in range(1, length):
            if mask[place]:
                total, count = total - float(log_probs[place - 1, row[place]].detach()), count + 1
    assert Trainer(tokenizer, network, plan).loss(ids).item() == pytest.approx(total / count, rel=1e-9)


def test_texts_follow_the_seed(tokenizer) -> None:
    first, again, other = (
        next(train_model.batches(tokenizer, Plan(minutes=1, stage="truth", batch_size=4, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_the_whole_walk_in_seconds(tmp_path, monkeypatch) -> None:
    """Both stages and the export, a moment of processor time each, with fewer texts; transformers reads the folder."""
    import transformers

    monkeypatch.setattr(train, "TOKENIZER_CONVERSATIONS", 100)
    run, folder = tmp_path / "run", tmp_path / "model"
    short = ["--run", str(run), "--minutes", "0.005", "--batch-size", "2"]
    train.main(["truth", *short])
    train.main(["slips", *short, "--start", "truth"])
    train.main(["export", "--run", str(run), "--start", "slips", "--to", str(folder)])
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in log if row.get("finished")] == ["truth", "slips"]
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert network.num_parameters() < 1.5e6
    assert len(transformers.AutoTokenizer.from_pretrained(folder)) == network.config.vocab_size
