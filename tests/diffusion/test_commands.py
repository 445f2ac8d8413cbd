"""The commands on the miniature: a run from start to report, resuming, evaluating, drawing, scoring; their errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from align.config.load import load_config
from align.config.shared import RewardConfig, TrainingConfig
from align.errors import AlignError
from diffusion import commands
from diffusion.config import PromptsConfig
from diffusion.evaluate import evaluation_sampler
from diffusion.generate import draw
from diffusion.models.sd3 import StableDiffusion3

from .models.config import miniature_run
from .models.miniature import miniature_pipeline


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """Accelerate keeps its state in the process; a run of another precision would be refused."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two steps and its settings."""
    config = miniature_run(tmp_path_factory.mktemp("commands"))
    folder = commands.train(config, command="align train mini.yaml")
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder, config


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_everything_behind(finished):
    folder, _ = finished
    metrics = lines(folder / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [0, 1, 2]
    for name in ("reward", "kl", "kl_lagged", "ratio_deviation", "clip_ratio", "policy_loss", "matching_error"):
        assert name in metrics[1]
    assert {name for name in metrics[0] if name.startswith("eval/brightness/")} == {
        "eval/brightness/mean",
        "eval/brightness/one",
        "eval/brightness/count",
    }
    assert metrics[1]["ratio_deviation"] == 0
    assert "eval/brightness/mean" in metrics[2]
    for name in ("config.yaml", "plan.json", "report.html", "weights/pytorch_lora_weights.safetensors"):
        assert (folder / name).is_file()
    assert [p.name for p in sorted((folder / "evaluations").glob("*.json"))] == ["step_000000.json", "step_000002.json"]
    assert len(lines(folder / "strip" / "strip.jsonl")) == 3 * 2
    assert len(list((folder / "images" / "step_000001").iterdir())) == 8


def test_the_saved_config_is_the_one_that_ran(finished):
    folder, config = finished
    assert load_config(folder) == config
    assert "align train mini.yaml" in (folder / "config.yaml").read_text()


def test_an_existing_folder_is_refused(finished):
    with pytest.raises(AlignError, match="is there already"):
        commands.train(finished[1])


def test_exported_weights_draw_what_the_checkpoint_draws(finished, tmp_path):
    """The moving average in the checkpoint, our LoRA file read by us, and the LoRA file read by stock diffusers."""
    folder, config = finished
    options = {"prompts": ["a red circle"], "seeds": (0, 3)}
    drawn = {}
    for name, checkpoint in [("run", folder), ("weights", folder / "weights"), ("base", None)]:
        paths = commands.generate(config, checkpoint=checkpoint, output=tmp_path / name, **options)
        assert [path.name for path in paths] == ["000.png", "001.png"]
        drawn[name] = [path.read_bytes() for path in paths]
    assert drawn["run"] == drawn["weights"]
    assert drawn["run"] != drawn["base"]
    assert (tmp_path / "run" / "grid.png").is_file()
    assert [row["seed"] for row in lines(tmp_path / "run" / "pictures.jsonl")] == [0, 3]

    pipeline = miniature_pipeline()
    pipeline.load_lora_weights(folder / "weights")
    model = StableDiffusion3(pipeline, 0)
    images = draw(model, model.network, ["a red circle"], (0, 3), evaluation_sampler(config.evaluation, config.rollout))
    with Image.open(tmp_path / "run" / "000.png") as ours:
        assert list(ours.convert("RGB").tobytes()) == list(images[0].tobytes())


def test_a_picture_depends_on_prompt_and_seed_alone(finished, tmp_path):
    config = finished[1]
    both = commands.generate(config, prompts=["a red circle", "two blue squares"], seeds=(0, 1), output=tmp_path / "a")
    alone = commands.generate(config, prompts=["two blue squares"], seeds=(1,), output=tmp_path / "b")
    left, right = (torch.tensor(list(Image.open(p).convert("RGB").tobytes())) for p in (both[3], alone[0]))
    assert (left - right).abs().max() <= 1


def test_generate_without_prompts_is_an_error(finished):
    with pytest.raises(AlignError, match="no prompt or no seed"):
        commands.generate(finished[1])


def test_evaluate_pairs_a_checkpoint_with_its_base(finished, tmp_path, capsys):
    folder, config = finished
    output = commands.evaluate(config, checkpoint=folder / "checkpoints" / "step_000001", output=tmp_path / "out")
    base, trained = (json.loads((output / "evaluations" / f"step_00000{n}.json").read_text()) for n in (0, 1))
    assert [(r["prompt"], r["seed"]) for r in base["rows"]] == [(r["prompt"], r["seed"]) for r in trained["rows"]]
    assert base["rows"] != trained["rows"]
    assert trained["weights"] == "ema"
    before = json.loads((folder / "evaluations" / "step_000000.json").read_text())
    assert base["rows"] == before["rows"]  # the run's own evaluation of the base
    printed = capsys.readouterr().out
    assert "gain" in printed
    assert "brightness" in printed


def test_evaluating_the_last_checkpoint_repeats_the_runs_last_evaluation(finished, tmp_path):
    folder, config = finished
    output = commands.evaluate(config, checkpoint=folder, output=tmp_path)
    again = json.loads((output / "evaluations" / "step_000002.json").read_text())
    assert again["rows"] == json.loads((folder / "evaluations" / "step_000002.json").read_text())["rows"]


def test_evaluate_without_heldout_prompts_is_an_error(finished, monkeypatch):
    monkeypatch.setattr(commands, "load_model", lambda *_: pytest.fail("a model was loaded"))
    config = replace(finished[1], prompts=PromptsConfig(train=finished[1].prompts.train, heldout=None))
    with pytest.raises(AlignError, match="nothing to evaluate on"):
        commands.evaluate(config)


def test_weights_that_are_not_there_are_an_error_before_a_model_loads(finished, tmp_path, monkeypatch):
    def no_model(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(commands, "load_model", no_model)
    with pytest.raises(AlignError, match="expected a checkpoint"):
        commands.evaluate(finished[1], checkpoint=tmp_path)
    with pytest.raises(AlignError, match="expected a checkpoint"):
        commands.generate(finished[1], checkpoint=tmp_path, prompts=["x"])


def test_weights_of_another_rank_are_an_error(finished, tmp_path):
    folder, config = finished
    other = replace(config, model=replace(config.model, lora=replace(config.model.lora, rank=2)))
    with pytest.raises(AlignError, match="another kind"):
        commands.generate(other, checkpoint=folder / "weights", prompts=["x"], output=tmp_path)
    with pytest.raises(AlignError, match="another model"):
        commands.generate(other, checkpoint=folder, prompts=["x"], output=tmp_path)


def test_resuming_a_stopped_run_gives_the_numbers_of_one_that_was_not(tmp_path):
    """Stopped after step 1 of 2 and gone on: weights, lagged policy, average and metrics bit for bit (times apart)."""
    import shutil

    straight = commands.train(miniature_run(tmp_path / "a"))
    config = miniature_run(tmp_path / "b")
    stopped = commands.train(config)
    shutil.rmtree(stopped / "checkpoints" / "step_000002")
    again = commands.train(config, resume=stopped)
    assert again == stopped

    def numbers(folder):
        return [
            {k: v for k, v in row.items() if not k.startswith("time/") and k != "images_per_second"}
            for row in lines(folder / "metrics.jsonl")
        ]

    assert numbers(again) == numbers(straight)
    for name in ("weights", "algorithm", "ema", "optimizer"):
        parts = [
            (folder / "checkpoints" / "step_000002" / f"{name}.safetensors").read_bytes()
            for folder in (again, straight)
        ]
        assert parts[0] == parts[1]
    assert (again / "evaluations" / "step_000002.json").read_text() == (
        straight / "evaluations" / "step_000002.json"
    ).read_text()


def test_a_run_of_bad_rewards_stops_and_says_why(tmp_path):
    (tmp_path / "bad.py").write_text("def bad(*, images):\n    raise RuntimeError('no scorer today')\n")
    config = miniature_run(tmp_path / "m", rewards=(RewardConfig(function=f"{tmp_path}/bad.py:bad"),))
    with pytest.raises(AlignError, match="no scorer today"):
        commands.train(config)


def test_a_missing_column_is_an_error_before_a_model_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "load_model", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "needs.py").write_text("def needs(*, images, answer):\n    return [0.0] * len(images)\n")
    config = miniature_run(tmp_path / "m", rewards=(RewardConfig(function=f"{tmp_path}/needs.py:needs"),))
    with pytest.raises(AlignError, match="answer"):
        commands.train(config)
    assert not (tmp_path / "m" / "runs").exists()


def test_fp16_on_the_cpu_is_an_error(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is an accelerator")
    config = miniature_run(tmp_path, training=TrainingConfig(steps=1, mixed_precision="fp16"))
    with pytest.raises((AlignError, ValueError), match="fp16"):
        commands.train(config)


def test_full_fine_tuning_in_bf16_saves_a_whole_pipeline(tmp_path):
    config = miniature_run(tmp_path, training=TrainingConfig(steps=1, micro_batch_size=4, mixed_precision="bf16"))
    config = replace(config, model=replace(config.model, lora=None), prompts=replace(config.prompts, heldout=None))
    folder = commands.train(config)
    assert (folder / "weights" / "model_index.json").is_file()
    assert lines(folder / "metrics.jsonl")[-1]["ratio_deviation"] == 0


def test_score_a_folder(tmp_path, capsys):
    """A white and a black picture: brightness 1 and 0, mean 0.5."""
    for name, grey in (("b.png", 255), ("a.png", 0)):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(tmp_path / name)
    (tmp_path / "note.txt").write_text("no picture")
    scores = commands.score(tmp_path, rewards=("brightness",), output=tmp_path / "out" / "scores.jsonl")
    assert [path.name for path in scores.images] == ["a.png", "b.png"]
    assert [row["brightness"] for row in scores.rewards] == [0.0, 1.0]
    assert scores.mean("brightness").mean == 0.5
    assert lines(tmp_path / "out" / "scores.jsonl")[1]["rewards"] == {"brightness": 1.0}
    assert "brightness" in capsys.readouterr().out


def test_score_matches_pictures_with_prompts(tmp_path):
    for name in ("x.png", "y.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "reward.py").write_text("def length(*, images, prompts):\n    return [len(p) for p in prompts]\n")
    reward = f"{tmp_path}/reward.py:length"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a", "image": "y.png"}\n{"prompt": "bbb", "image": "x.png"}\n')
    scores = commands.score(tmp_path, rewards=(reward,), prompts=prompts)
    assert [(p.name, r["length"]) for p, r in zip(scores.images, scores.rewards, strict=True)] == [
        ("y.png", 1.0),
        ("x.png", 3.0),
    ]
    prompts.write_text('{"prompt": "a", "image": "z.png"}\n')
    with pytest.raises(AlignError, match=r"z\.png"):
        commands.score(tmp_path, rewards=(reward,), prompts=prompts)
    prompts.write_text('{"prompt": "a"}\n')
    with pytest.raises(AlignError, match="expected one picture for each of the 1 prompts, found 2"):
        commands.score(tmp_path, rewards=(reward,), prompts=prompts)
    with pytest.raises(AlignError, match="expected a folder"):
        commands.score(tmp_path / "nowhere", rewards=("brightness",))
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(AlignError, match=r"broken\.png"):
        commands.score(tmp_path, rewards=("brightness",))


def test_a_refused_resume_leaves_the_config_alone(finished):
    """The way out of the error is the run folder's config, so that must still be the one of the checkpoint."""
    folder, config = finished
    assert config.model.lora is not None
    other = replace(config, model=replace(config.model, lora=replace(config.model.lora, rank=1)))
    with pytest.raises(AlignError, match="of another model"):
        commands.train(other, resume=folder)
    assert load_config(folder) == config


def test_the_contact_sheet_is_not_scored(tmp_path):
    for name in ("000.png", "001.png", "grid.png"):
        Image.new("RGB", (8, 8), "white").save(tmp_path / name)
    assert [path.name for path in commands.score(tmp_path, rewards=["brightness"]).images] == ["000.png", "001.png"]


@pytest.mark.parametrize("name", ["diffusers", "comfyui", "merged"])
def test_export_writes_the_averaged_weights(finished, tmp_path, name):
    folder, config = finished
    written = commands.export(config, source=folder, format=name, output=tmp_path / name, dtype="bfloat16")
    assert written.exists()
    if name == "diffusers":
        run, exported = load_file(folder / "weights" / written.name), load_file(written)
        assert run.keys() == exported.keys()
        assert all(torch.equal(weight, run[key].bfloat16()) for key, weight in exported.items())
    with pytest.raises(AlignError, match="not an empty folder"):
        commands.export(config, source=folder, format=name, output=tmp_path / name)


def test_export_refuses_what_it_does_not_know(finished, tmp_path):
    folder, config = finished
    with pytest.raises(AlignError, match="no export format 'gguf'"):
        commands.export(config, source=folder, format="gguf", output=tmp_path / "x")
    with pytest.raises(AlignError, match="kohya's names are known for"):
        commands.export(config, source=folder, format="kohya", output=tmp_path / "x")


def test_evaluation_has_a_page_and_the_diversity_within_a_prompt(finished, tmp_path, capsys):
    folder, config = finished
    output = commands.evaluate(config, checkpoint=folder, output=tmp_path / "out")
    assert "before" in (output / "report.html").read_text()
    record = json.loads((output / "evaluations" / "step_000002.json").read_text())
    assert len(record["diversity"]) == 2
    assert all(value > 0 for value in record["diversity"])
    assert "diversity" in capsys.readouterr().out
