"""Whole runs on a scorer behind an address that fails now and then: they go on, and nothing that was scored is lost."""

import json
from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState

from align.config.pipeline import Grpo, PipelineConfig
from align.config.shared import RewardConfig
from align.rewards.http_protocol import decode_image
from align.rewards.outcome import ScorerStopped
from diffusion import commands
from diffusion.config import EvaluationConfig

from ..align.rewards.servers import serving
from ..diffusion.models.config import miniature_run


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def config(folder, url, name="first", **options):
    judge = {
        "url": url,
        "batch_size": 2,
        "in_flight": 1,
        "retries": 0,
        "cache": str(folder / "scores.sqlite"),
        **options,
    }
    made = miniature_run(
        folder,
        rewards=(RewardConfig(function="http", name="judge", options=judge),),
        evaluation=EvaluationConfig(seeds=1, num_inference_steps=2, strip_prompts=0, every=2),
        pipeline=PipelineConfig(base=Grpo(scale="group")),
    )
    return replace(made, output=replace(made.output, name=name))


def greenness(content):
    return [decode_image(image).resize((1, 1)).getpixel((0, 0))[1] / 255 for image in content["images"]]


def test_a_run_goes_on_without_what_could_not_be_scored(tmp_path):
    """Pictures of one prompt go out two by two. The server refuses every third request."""
    refused = []

    def moody(number, content):
        if number % 3 == 1:
            refused.append(content["prompts"])
            return 400, {}, "not in the mood"
        return {"scores": greenness(content)}

    with serving(moody) as (url, heard):
        place = commands.train(config(tmp_path, url))
        asked = len(heard)
    rows = [
        json.loads(line)
        for step in (1, 2)
        for line in (place / "samples" / f"step_{step:06d}.jsonl").read_text().splitlines()
    ]
    without = [row for row in rows if row["rewards"]["judge"] is None]
    assert 0 < len(without) < len(rows)
    assert all(row["advantage"] == 0 for row in without)
    assert any(row["advantage"] != 0 for row in rows)
    metrics = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in metrics} >= {1, 2}
    assert len(refused) >= 2
    AcceleratorState._reset_state(reset_partial_state=True)

    with serving(lambda *_: (400, {}, "gone"), int(url.rstrip("/").rpartition(":")[2])) as (again, second):
        assert again == url
        with pytest.raises(ScorerStopped, match="was refused with status 400: gone"):
            commands.train(config(tmp_path, url, name="again", on_error="stop"))
    first_step = sum(len(content["prompts"]) for content in second.requests)
    assert 0 < first_step < 8 < 2 * asked  # the same pictures as before; only those without a score are asked about
