"""The training of the embedded model: schedules by hand, exact resume, and a whole run of seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.tiny import build, dataset, evaluate, train, train_autoencoder, world
from diffusion.tiny import train_transformer as transformer_stage
from diffusion.tiny.train_transformer import Plan, Trainer


class TestLearningRate:
    @pytest.mark.parametrize(("progress", "factor"), [(0.02, 1.0), (0.5, 1.0), (0.6, 1.0), (0.8, 0.5), (1.0, 0.0)])
    def test_worked_by_hand(self, progress: float, factor: float) -> None:
        """Plateau to 0.6 of the budget, then a line to zero: (1 - 0.8) / (1 - 0.6) = 1/2."""
        assert transformer_stage.learning_rate_factor(progress) == pytest.approx(factor)

    def test_warm_up_rises_from_nearly_nothing(self) -> None:
        factors = [transformer_stage.learning_rate_factor(progress) for progress in np.linspace(0, 0.02, 10)]
        assert 0 < factors[0] < 0.1
        assert factors == sorted(factors)


def test_ema_worked_by_hand() -> None:
    """Step 8: d = min(0.999, 9/18) = 1/2. Average 0, weight 1: 1/2."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    ema = {"weight": torch.zeros(1, 1)}
    transformer_stage.update_ema(ema, model, step=8)
    assert ema["weight"].item() == pytest.approx(0.5)


def test_every_parameter_has_one_optimiser() -> None:
    model = transformer_stage.Model(build.tokenizer())
    matrices, others = transformer_stage.parameter_groups(model)
    assert {id(p) for p in (*matrices, *others)} == {id(p) for p in model.parameters()}
    assert len(matrices) + len(others) == len(list(model.parameters()))
    assert matrices
    assert all(parameter.ndim == 2 for parameter in matrices)


def small_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokenizer = build.tokenizer()
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(6, 16, 8, 8, generator=generator)
    ids = transformer_stage.token_ids(tokenizer, world.captions("two")[:6])
    return clean, ids, transformer_stage.token_ids(tokenizer, [""])[0].long()


def test_a_resumed_run_takes_the_same_steps(tmp_path: Path) -> None:
    plan = Plan(minutes=1.0, batch_size=4, learning_rate=1e-3, matrix_learning_rate=1e-3)
    straight, first = Trainer(build.tokenizer(), plan), Trainer(build.tokenizer(), plan)
    for _ in range(4):
        straight.update(*small_batch())
    for _ in range(2):
        first.update(*small_batch())
    transformer_stage.save(first, tmp_path / "transformer.pt")
    second = Trainer(build.tokenizer(), plan)
    second.load_state_dict(torch.load(tmp_path / "transformer.pt", weights_only=True))
    for _ in range(2):
        second.update(*small_batch())
    assert second.step == straight.step == 4
    for name, weight in straight.ema.items():
        assert torch.equal(weight, second.ema[name]), name


class TestAutoencoder:
    def test_foreground_counts_ten_times(self) -> None:
        picture = world.paint((world.Drawn(world.Thing("red", "square"), 32.0, 32.0, 10.0),))
        pixels = train_autoencoder.to_unit(torch.from_numpy(np.asarray(picture)[None].copy()))
        weight = train_autoencoder.foreground_weight(pixels)[0, 0]
        assert weight[32, 32] == 10.0
        assert weight[5, 5] == 1.0
        assert set(weight.unique().tolist()) == {1.0, 10.0}

    def test_loss_worked_by_hand(self) -> None:
        """All background, off by 1/2 everywhere: 1 * (1/2 + 1/4). A standard normal posterior has no divergence."""
        background = train_autoencoder.to_unit(torch.full((1, 64, 64, 3), 244, dtype=torch.uint8))
        posterior = train_autoencoder.DiagonalGaussianDistribution(torch.zeros(1, 32, 8, 8))
        loss, terms = train_autoencoder.autoencoder_loss(background, background + 0.5, posterior)
        assert loss.item() == pytest.approx(0.75)
        assert terms == {"reconstruction": pytest.approx(0.75), "kl": 0.0}

    def test_normalised_latents_have_mean_zero_and_unit_deviation(self) -> None:
        pictures, _ = dataset.draw(8, seed=0)
        torch.manual_seed(0)
        model = build.autoencoder()
        mean, std = train_autoencoder.measure_latents(model, pictures)
        model.register_to_config(shift_factor=mean, scaling_factor=1 / std)
        latents = train_autoencoder.normalised_latents(model, pictures)
        assert latents.mean().item() == pytest.approx(0.0, abs=1e-4)
        assert latents.std().item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.filterwarnings("ignore")  # diffusers and transformers warn while they save and load
def test_a_whole_run_of_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stages, badly trained: the folder loads as a pipeline and draws pictures that the reward can judge."""
    monkeypatch.setattr(train, "PICTURES", 32)
    monkeypatch.setattr(train, "AUTOENCODER_PICTURES", 32)
    monkeypatch.setattr(train, "CHECKED_PICTURES", 16)
    run = ["--run", str(tmp_path / "run"), "--threads", "1"]
    train.main(["autoencoder", *run, "--minutes", "0.01"])
    train.main(["latents", *run])
    train.main(["transformer", *run, "--minutes", "0.02", "--batch-size", "8"])
    train.main(["export", *run, "--to", str(tmp_path / "model")])

    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("round_trip_strict" in row for row in rows)
    pipeline = evaluate.load(tmp_path / "model")
    assert pipeline.text_encoder_3 is None
    images = evaluate.draw(pipeline, ["a red circle", "two blue squares"], [0, 1], num_inference_steps=2)
    assert [image.size for image in images] == [(64, 64)] * 2
    row = evaluate.summarise("one", images, ["a red circle", "two blue squares"])
    assert row.strict.n == 2
