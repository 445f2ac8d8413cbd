"""The committed model folder and prompt files: what they promise."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusion.tiny import dataset, evaluate, model_path, prompts_path, train_autoencoder, world

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def pipeline():
    return evaluate.load(model_path())


def strict(pipeline, kind: str, count: int, **options) -> float:
    prompts = evaluate.spread(kind, count)
    images = evaluate.draw(pipeline, prompts, range(count), **options)
    return evaluate.summarise(kind, images, prompts).strict.mean


class TestFolder:
    def test_it_is_small_and_holds_only_safetensors_and_json(self) -> None:
        files = [file for file in model_path().rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) <= 10 * MEBIBYTE
        assert {file.suffix for file in files} == {".safetensors", ".json"}

    def test_it_is_a_stable_diffusion_3_without_t5(self, pipeline) -> None:
        assert type(pipeline).__name__ == "StableDiffusion3Pipeline"
        assert pipeline.text_encoder_3 is None

    def test_it_loads_with_the_plain_call_and_its_t5_is_silent(self, pipeline) -> None:
        """diffusers refuses a Stable Diffusion 3 folder without T5; ours says exactly what an absent one would."""
        stock = DiffusionPipeline.from_pretrained(model_path())
        stock.set_progress_bar_config(disable=True)
        call = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "np"}
        pictures = [
            pipe("a red circle", generator=torch.Generator().manual_seed(0), **call).images
            for pipe in (stock, pipeline)
        ]
        assert stock.text_encoder_3 is not None
        assert (pictures[0] == pictures[1]).all()

    def test_no_file_names_the_place_it_was_made(self) -> None:
        assert not [file for file in model_path().rglob("*.json") if "_name_or_path" in file.read_text()]

    def test_pictures_survive_the_round_trip(self, pipeline) -> None:
        """The autoencoder is the ceiling of every success: 64 fresh pictures, all still right."""
        pictures, captions = dataset.draw(64, seed=5)
        assert train_autoencoder.round_trip_success(pipeline.vae, pictures, captions) == 1.0

    def test_latents_are_normalised(self, pipeline) -> None:
        pictures, _ = dataset.draw(64, seed=6)
        latents = train_autoencoder.normalised_latents(pipeline.vae, pictures)
        assert latents.mean().item() == pytest.approx(0.0, abs=0.05)
        assert latents.std().item() == pytest.approx(1.0, abs=0.05)

    def test_one_object_is_mostly_right(self, pipeline) -> None:
        """Measured: see docs/results/embedded_model.md. The bound leaves room for another CPU's rounding."""
        assert strict(pipeline, "one", 15) >= 0.7

    def test_two_objects_leave_something_to_learn(self, pipeline) -> None:
        assert 0.1 <= strict(pipeline, "two", 24) <= 0.8

    def test_a_picture_depends_on_its_own_seed_only(self, pipeline) -> None:
        prompts = ["a red circle", "two blue squares"]
        both = evaluate.draw(pipeline, prompts, [3, 4], num_inference_steps=4)
        alone = evaluate.draw(pipeline, prompts[1:], [4], num_inference_steps=4)
        difference = torch.tensor(list(both[1].tobytes())).float() - torch.tensor(list(alone[0].tobytes())).float()
        assert difference.abs().max() <= 2  # 8-bit levels; batches of other sizes round differently

    def test_the_stock_call_with_256_zero_tokens_works(self, pipeline) -> None:
        assert strict(pipeline, "one", 8, max_sequence_length=256, num_inference_steps=12) >= 0.5


class TestPromptFiles:
    @pytest.mark.parametrize("split", ["train", "heldout"])
    def test_they_are_what_the_world_says(self, split: str) -> None:
        rows = [json.loads(line) for line in prompts_path(split).read_text(encoding="utf-8").splitlines()]
        assert rows == dataset.prompt_rows(split)
        assert {row["class"] for row in rows} == set(world.CLASSES)
        assert all(world.parse(row["prompt"]).kind == row["class"] for row in rows)

    def test_they_are_disjoint(self) -> None:
        train, held_out = (
            {json.loads(line)["prompt"] for line in prompts_path(split).read_text().splitlines()}
            for split in ("train", "heldout")
        )
        assert not train & held_out

    def test_an_unknown_split(self) -> None:
        with pytest.raises(ValueError, match="'test'"):
            prompts_path("test")


def test_the_training_log_is_there() -> None:
    rows = [json.loads(line) for line in (Path(model_path()).parent / "training_log.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"autoencoder", "transformer"}
