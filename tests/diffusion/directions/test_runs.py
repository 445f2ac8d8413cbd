"""A run with directions from start to finish: what it leaves, going on, drawing, exporting, stock diffusers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from align.config.directions import Arc
from align.config.load import load_config
from align.config.pipeline import PipelineConfig
from align.config.shaping import Directional, DrawnDirection, ZScore
from align.config.shared import RewardConfig, TrainingConfig
from align.errors import AlignError
from diffusion import commands
from diffusion.config import DirectionsConfig, EmbeddingCondition, EvaluationConfig, ShownConfig
from diffusion.directions.files import read_directions
from diffusion.directions.stock import along
from diffusion.evaluate import evaluation_sampler
from diffusion.generate import draw
from diffusion.models.sd3 import StableDiffusion3

from ..models.config import miniature_run
from ..models.miniature import miniature_pipeline

ASKED = "brightness=0.8,contrast=0.6"


def steered_run(folder, **changes):
    """Two steps on brightness and contrast, told through an embedding that learns fast enough to be seen."""
    base = miniature_run(folder)
    return replace(
        base,
        rewards=(RewardConfig(function="brightness"), RewardConfig(function="contrast")),
        pipeline=PipelineConfig(transforms=(ZScore(scope="running"),), weights=DrawnDirection(), combine=Directional()),
        directions=DirectionsConfig(
            sample=Arc(),
            condition=EmbeddingCondition(hidden=8, frequencies=1, dropout=0.3),
            shown=ShownConfig(count=3, prompts=1),
        ),
        optimizer=replace(base.optimizer, learning_rate=0.05),
        training=TrainingConfig(steps=2, micro_batch_size=8),
        evaluation=EvaluationConfig(seeds=1, num_inference_steps=2, strip_prompts=3, strip_every=0),
        output=replace(base.output, images_every=0),
        **changes,
    )


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """Accelerate keeps its state in the process; a run of another precision would be refused."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its settings."""
    config = steered_run(tmp_path_factory.mktemp("steered"))
    folder = commands.train(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder, config


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def pixels(path):
    with Image.open(path) as picture:
        return list(picture.convert("RGB").tobytes())


def test_what_a_run_leaves(finished):
    """Before training every direction draws the same pictures: means 0 on their own scale, 2 x 2 above (-2, -2)."""
    folder, config = finished
    assert load_config(folder) == config
    first, *_, last = lines(folder / "metrics.jsonl")
    labels = ("brightness 100", "brightness 71, contrast 71", "contrast 100")
    assert len({first[f"eval/brightness/{label}"] for label in labels}) == 1
    assert len({last[f"eval/brightness/{label}"] for label in labels}) == 3
    assert first["eval/control/hypervolume"] == pytest.approx(4.0)
    assert first["eval/control/violated_pairs"] == 0
    assert first["eval/control/brightness"] == 0
    assert {"eval/control/brightness", "eval/control/contrast", "eval/control/hypervolume"} <= last.keys()
    assert any(name.startswith("directions/") for name in lines(folder / "metrics.jsonl")[1])
    record = json.loads((folder / "evaluations" / "step_000002.json").read_text())
    assert [row["class"] for row in record["rows"]] == list(labels)
    assert len({row["prompt"] for row in record["rows"]}) == 1

    asker = read_directions(folder / "weights")
    assert (asker.names, asker.condition, asker.sample) == (
        ("brightness", "contrast"),
        config.directions.condition,
        config.directions.sample,
    )
    embedding = load_file(folder / "weights" / "direction_embedding.safetensors")
    assert embedding["second.weight"].abs().max() > 0
    adapters = load_file(folder / "weights" / "pytorch_lora_weights.safetensors")
    assert not any("direction" in name for name in adapters)
    assert (folder / "report.html").is_file()


def test_a_stopped_run_goes_on_to_the_same_numbers(finished, tmp_path):
    """Weights with the embedding, lagged policy, and the figures, whose scale is read from the evaluation of step 0."""
    folder, config = finished
    other = replace(config, output=replace(config.output, directory=str(tmp_path)))
    again = tmp_path / "run"
    shutil.copytree(folder, again)
    shutil.rmtree(again / "checkpoints" / "step_000002")
    shutil.rmtree(again / "weights")
    (again / "evaluations" / "step_000002.json").unlink()
    commands.train(other, resume=again)
    for name in ("weights", "algorithm", "optimizer"):
        parts = [path / "checkpoints" / "step_000002" / f"{name}.safetensors" for path in (folder, again)]
        assert parts[0].read_bytes() == parts[1].read_bytes()
    assert any("direction_embedding" in name for name in load_file(parts[0].with_name("weights.safetensors")))
    records = [json.loads((path / "evaluations" / "step_000002.json").read_text()) for path in (folder, again)]
    assert records[0] == records[1]
    assert "control/hypervolume" in records[0]["figures"]


def test_pictures_along_a_direction(finished, tmp_path):
    """The checkpoint, the exported files, and stock diffusers with them draw the same; other directions do not."""
    folder, config = finished
    options = {"prompts": ["a red circle"], "seeds": (0,)}
    drawn = {}
    for name, checkpoint, direction in [
        ("run", folder, ASKED),
        ("weights", folder / "weights", ASKED),
        ("other", folder, "contrast=1"),
        ("none", folder, None),
    ]:
        (path,) = commands.generate(
            config, checkpoint=checkpoint, output=tmp_path / name, direction=direction, **options
        )
        drawn[name] = pixels(path)
    assert drawn["run"] == drawn["weights"]
    assert len({tuple(one) for one in drawn.values()}) == 3
    assert lines(tmp_path / "run" / "pictures.jsonl")[0]["direction"] == "brightness 80, contrast 60"

    written = commands.export(config, source=folder, output=tmp_path / "exported")
    pipeline = miniature_pipeline()
    pipeline.load_lora_weights(written.parent)
    model = StableDiffusion3(pipeline, 0)
    settings = evaluation_sampler(config.evaluation, config.rollout)
    with along(pipeline, written.parent, {"brightness": 4.0, "contrast": 3.0}) as ask:
        (ours,) = draw(model, model.network, [ask("a red circle")], (0,), settings)
    assert list(ours.tobytes()) == drawn["run"]
    (without,) = draw(model, model.network, ["a red circle"], (0,), settings)
    assert list(without.tobytes()) != drawn["run"]
    assert not any("direction" in name for name in model.network.state_dict())


def test_what_cannot_be_exported_or_read(finished, tmp_path):
    folder, config = finished
    with pytest.raises(AlignError, match="through an embedding, and readers of kohya files have none"):
        commands.export(config, source=folder, format="kohya", output=tmp_path / "kohya")
    (tmp_path / "bare").mkdir()
    shutil.copy(folder / "weights" / "pytorch_lora_weights.safetensors", tmp_path / "bare")
    options = {"prompts": ["a red circle"], "seeds": (0,), "output": tmp_path / "x"}
    with pytest.raises(AlignError, match=r"has no direction_embedding\.safetensors"):
        commands.generate(config, checkpoint=tmp_path / "bare", direction=ASKED, **options)
    with pytest.raises(AlignError, match=r"has no direction\.json"), along(None, tmp_path / "bare", {"brightness": 1}):
        pass
    plain = replace(config, directions=None, pipeline=PipelineConfig())
    with pytest.raises(AlignError, match="of another model"):
        commands.generate(plain, checkpoint=folder, **options)
    swapped = replace(config, rewards=config.rewards[::-1])
    with pytest.raises(AlignError, match="brightness, contrast in 1 frequencies"):
        commands.generate(swapped, checkpoint=folder, direction=ASKED, **options)
