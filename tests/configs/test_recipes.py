"""The published recipes: their numbers, and a whole step of each kind on the miniature of its model family.

That every file loads with all checks and has a plan is in `test_configs.py`. Here each one is scaled down as little as
possible: another model folder and size, fewer pictures, and rewards that need no download and no server. Recipes that
are the same but for numbers make one class (`structure`); the first of each class is run, the others say which.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from align.config import shipped
from align.config.branches import branch_module
from align.config.checks import reward_name
from align.config.load import check_config, load_config
from align.config.shared import CheckpointConfig, OutputConfig, RewardConfig
from align.rewards.geneval import clauses
from align.rewards.ocr import quoted
from diffusion import commands
from diffusion.config import OFFLINE, DiffusionRun, EvaluationConfig
from diffusion.prompt_sets import SPLITS
from diffusion.prompt_sets.make import contents
from diffusion.prompts import read_prompts
from diffusion.stored_pictures import read_pictures
from diffusion.tiny.reward import shapes

from ..diffusion.models.families import FAMILIES, Family, resolution

RECIPES = tuple(name for name in shipped.names() if name.startswith("diffusion/"))
BY_NAME = {family.name: family for family in FAMILIES}
FREE = ("brightness", "contrast", "sharpness", "jpeg_size")
"""Rewards that need nothing, one for each that needs a server, weights or minutes."""
PICTURES = (2, 6)
"""Prompts and pictures of each: 12 divide by the 1 to 4 updates of all recipes."""
STEPS = {50: 4, 25: 8, 16: 8, 14: 8}
"""Long rollouts -> shorter ones in which windows and training times still fit."""


@cache
def loaded(name: str) -> DiffusionRun:
    return load_config(name)


# --- numbers ----------------------------------------------------------------------------------------------------------

PUBLISHED = {
    # pictures (pairs) of a step, updates, learning rate, network evaluations of each
    "awm_sd35m": (72 * 24, 1, 3e-4, 14 + 6 * 3 + 6 + 6),
    "awm_sd35m_ocr": (72 * 24, 1, 3e-4, 44),
    "awm_sd35m_pickscore": (24 * 24, 1, 3e-4, 44),
    "awm_sd35m_paper": (72 * 24, 1, 3e-4, 14 + 4 * 3 + 4),
    "awm_flux_ocr": (72 * 24, 1, 3e-4, 14 + 6 * 3 + 6),
    "flow_grpo_sd35m_geneval": (48 * 24, 2, 3e-4, 20 + 9 * (2 + 2) + 18),
    "flow_grpo_sd35m_ocr": (1152, 2, 3e-4, 74),
    "flow_grpo_sd35m_pickscore": (1152, 2, 3e-4, 74),
    "flow_grpo_sd35m_1gpu": (8 * 8, 2, 3e-4, 74),
    "grpo_guard_sd35m_ocr": (1152, 2, 3e-4, 74),
    "flow_grpo_fast_sd35m_pickscore": (64 * 18, 2, 3e-4, 10 + 3 * 3),
    "flow_grpo_fast_flux_pickscore": (1152, 2, 3e-4, 6 + 3 * 3),
    "flow_grpo_flux_ocr": (1152, 2, 3e-4, 6 + 5 * 3),
    "ddpo_sd15_compressibility": (256, 4, 3e-4, 50 * 2 + 50 * 2 * 3),
    "ddpo_sd15_aesthetic": (256, 4, 3e-4, 400),
    "loop_sd2_aesthetic": (256, 4, 3e-4, 400),
    "nft_sd35m_geneval": (1152, 1, 3e-4, 10 + 10 * 3 + 10 + 10),
    "nft_sd35m_pickscore": (1152, 1, 3e-4, 60),
    "dance_grpo_flux_hps": (16 * 12, 3, 1e-5, 16 + 9 * 3),
    "mix_grpo_flux": (32 * 12, 4, 1e-5, 25 + 4 * 3),
    "flow_dpo_sd35m": (1152, 1, 3e-4, 10.3),
    "diffusion_dpo_sd15": (2048, 1, 2.048e-5, 2 * 3 + 2),
    "diffusion_dpo_sdxl": (2048, 1, 2.048e-5, 8),
}
"""Worked out by hand from the papers' settings. A backward pass counts as two; of Flow-DPO's 24 pictures two are passed
four times each: 10 + 8 / 24 = 10.3."""
SETTINGS = {
    "awm_sd35m": {"algorithm.kl_beta": 0.001, "algorithm.times.initial": "skip", "rollout.sampler.noise_level": 0.4},
    "awm_sd35m_ocr": {"algorithm.kl_beta": 0.003, "algorithm.times.initial": "skip"},
    "awm_sd35m_pickscore": {
        "algorithm.kl_beta": 0.0001,
        "algorithm.times.initial": "allow",
        "rollout.sampler.noise_level": 0.0,
    },
    "awm_flux_ocr": {"algorithm.kl_beta": 0.4, "algorithm.lagged": None},
    "flow_grpo_sd35m_geneval": {"algorithm.kl_beta": 0.04, "algorithm.clip_range": 1e-4, "training.ema.every": 8},
    "flow_grpo_sd35m_pickscore": {"algorithm.kl_beta": 0.01, "rollout.guidance_scale": 4.5},
    "grpo_guard_sd35m_ocr": {"algorithm.clip_range": 2e-6, "algorithm.guard.divide_by_dt": True},
    "flow_grpo_fast_sd35m_pickscore": {
        "algorithm.clip_range": 1e-5,
        "algorithm.kl_beta": 0.0,
        "algorithm.steps.size": 3,
        "rollout.sampler.kind": "cps",
        "rollout.sampler.noise_level": 0.8,
        "rollout.guidance_scale": 1.0,
    },
    "flow_grpo_fast_flux_pickscore": {"pipeline.base.global_std": False, "model.lora.rank": 64},
    "flow_grpo_flux_ocr": {"rollout.sampler.noise_level": 0.9, "rollout.guidance_scale": 3.5},
    "ddpo_sd15_compressibility": {"pipeline.base.buffer_size": 16, "rollout.sampler.eta": 1.0, "training.steps": 100},
    "ddpo_sd15_aesthetic": {"pipeline.base.buffer_size": 32, "pipeline.base.min_count": 16, "training.steps": 200},
    "nft_sd35m_geneval": {"algorithm.beta": 1.0, "algorithm.kl_beta": 1e-4, "algorithm.lagged.max_decay": 0.5},
    "dance_grpo_flux_hps": {
        "rollout.sampler.noise_level": 0.3,
        "rollout.share_initial_noise": True,
        "pipeline.base.unbiased": True,
        "optimizer.max_grad_norm": 0.01,
    },
    "mix_grpo_flux": {"algorithm.steps.size": 4, "algorithm.steps.every": 25, "rollout.sampler.noise_level": 0.7},
    "loop_sd2_aesthetic": {"pipeline.base.kind": "rloo", "algorithm.objective": "ppo_min"},
    "flow_dpo_sd35m": {"algorithm.beta": 100.0},
    "diffusion_dpo_sd15": {"algorithm.beta": 2000.0, "model.lora": None},
    "diffusion_dpo_sdxl": {"algorithm.beta": 5000.0, "rollout.resolution": 1024},
}
"""What sets a recipe apart."""


def test_every_recipe_is_in_the_table():
    assert {f"diffusion/{name}" for name in PUBLISHED} == set(RECIPES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_arithmetic_of_the_plan(name):
    config = loaded(f"diffusion/{name}")
    made = branch_module(type(config), "plan").plan(config, 8)
    rows = {row.label: row.value.replace(",", "") for section in made.sections for row in section.rows}
    pictures, updates, learning_rate, evaluations = PUBLISHED[name]
    drawn = config.algorithm.pairs_per_step if isinstance(config.algorithm, OFFLINE) else int(rows["pictures"])
    assert (drawn, config.training.updates_per_rollout) == (pictures, updates)
    assert config.optimizer.learning_rate == learning_rate
    counts = [row.value for section in made.sections if section.title.startswith("Network") for row in section.rows]
    assert float(counts[-1].replace(",", "")) == evaluations


def test_the_page_lists_every_recipe_with_the_numbers_of_its_plan():
    page = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| `diffusion/")
    ]
    told = {row[1].strip("`").removeprefix("diffusion/"): (row[5].split()[0], row[6].split()[0]) for row in rows}
    assert told == {name: (f"{row[0]:,}", f"{row[3]:g}") for name, row in PUBLISHED.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_sets_a_recipe_apart(name):
    for key, value in SETTINGS[name].items():
        found: Any = loaded(f"diffusion/{name}")
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value, key


@pytest.mark.parametrize("name", RECIPES)
def test_opens_with_its_command_and_marks_its_sources(name):
    lines = shipped.get(name).read_text(encoding="utf-8").splitlines()
    assert lines[0].endswith("Run it with:")
    assert lines[1].endswith(f"align train {name}")
    head = "\n".join(line for line in lines[: lines.index("branch: diffusion")])
    assert "not repeated" in head
    assert "[C] read" in head
    assert "[?] not verified" in head
    unmarked = [
        line
        for line in lines
        if any(line.startswith(f"  {key}:") for key in ("learning_rate", "group_size", "kl_beta", "clip_range", "beta"))
        and not any(mark in line for mark in ("[C]", "[P]", "[I]", "[?]", "ours"))
    ]
    assert unmarked == []


# --- prompts and pairs that stand in for the published ones -----------------------------------------------------------


def test_prompt_files_are_what_their_script_writes():
    for path, text in contents().items():
        assert path.read_text(encoding="utf-8") == text
        prompts = read_prompts(str(path)).prompts
        assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("name", ["animals", "scenes", "ocr", "geneval"])
def test_held_out_prompts_are_never_trained_on(name):
    train, heldout = (read_prompts(f"builtin:{name}/{split}") for split in ("train", "heldout"))
    assert not set(train.prompts) & set(heldout.prompts)
    assert len(train) >= 64
    assert len(heldout) >= 16


def test_held_out_texts_and_specifications_are_what_the_rewards_read():
    texts = {split: {quoted(prompt) for prompt in read_prompts(f"builtin:ocr/{split}").prompts} for split in SPLITS}
    assert None not in texts["train"] | texts["heldout"]
    assert not texts["train"] & texts["heldout"]
    for split in SPLITS:
        rows = read_prompts(f"builtin:geneval/{split}")
        assert set(rows.columns) == {"tag", "class", "include"}
        for prompt, include in zip(rows.prompts, rows.columns["include"], strict=True):
            assert all(clause.name in prompt for clause in clauses(include))


def test_painted_pairs_show_their_captions_and_others():
    """Read back from the pixels: the chosen picture has the caption's objects, the rejected one has not all of them."""
    pairs = read_pictures(loaded("diffusion/diffusion_dpo_sd15").algorithm.data)
    assert len(pairs) == 2400
    rows = range(0, len(pairs), 97)
    pictures = [[Image.open(io.BytesIO(content)) for content in pairs.contents(row)] for row in rows]
    prompts = [pairs.prompts[row] for row in rows]
    chosen = shapes(images=[pair[0] for pair in pictures], prompts=prompts)
    rejected = shapes(images=[pair[1] for pair in pictures], prompts=prompts)
    assert all(score == 1 for score in chosen)
    assert sum(score < 1 for score in rejected) >= 0.9 * len(prompts)
    assert pairs.contents(5) == pairs.contents(5)


# --- a step of each kind ----------------------------------------------------------------------------------------------


def structure(config: DiffusionRun) -> tuple[object, ...]:
    """What decides which code a run goes through, without its numbers."""
    algorithm, base = config.algorithm, config.pipeline.base
    return (
        config.model.kind,
        config.model.lora is None,
        algorithm.kind,
        config.rollout.sampler.kind,
        getattr(getattr(algorithm, "steps", None), "kind", None),
        config.rollout.guidance_scale == 1,
        getattr(algorithm, "kl_beta", 0) > 0,
        getattr(algorithm, "lagged", None) is None,
        getattr(algorithm, "guard", None) is None,
        config.rollout.share_initial_noise,
        base.kind,
        len(config.rewards) > 1,
    )


def _classes() -> dict[str, list[str]]:
    """First recipe of each class -> all of it."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name in RECIPES:
        found.setdefault(structure(loaded(name)), []).append(name)
    return {names[0]: names for names in found.values()}


CLASSES = _classes()


def family_of(config: DiffusionRun) -> Family:
    if config.model.kind == "stable_diffusion":
        return BY_NAME["sd2_v" if "diffusion-2" in config.model.path else "sd15"]
    return BY_NAME[config.model.kind]


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    """Saved miniatures, each made when it is first wanted."""
    folder = tmp_path_factory.mktemp("miniatures")

    def saved(family: Family) -> tuple[Path, int]:
        if family.name not in sizes:
            pipeline = family.pipeline(0)
            pipeline.save_pretrained(folder / family.name)
            sizes[family.name] = resolution(family.around(pipeline))
        return folder / family.name, sizes[family.name]

    sizes: dict[str, int] = {}
    return saved


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def free(number: int, reward: RewardConfig) -> RewardConfig:
    """The reward itself where it needs nothing, else another under its name."""
    if reward.function.startswith("jpeg_"):
        return reward
    return replace(reward, function=FREE[number % 4], name=reward.name or reward.function, options={})


def scaled_down(config: DiffusionRun, family: Family, saved: tuple[Path, int], folder: Path) -> DiffusionRun:
    """One step of a recipe on a miniature."""
    path, pixels = saved
    steps = config.rollout.num_inference_steps
    algorithm = config.algorithm
    if isinstance(algorithm, OFFLINE):
        algorithm = replace(algorithm, pairs_per_step=4)
    # Truncated, because the miniatures' tokenizers know few words and cut the others into letters.
    changes = {"path": str(path), "dtype": "float32", "long_prompts": "truncate", **family.settings}
    return replace(
        config,
        model=replace(config.model, **changes),
        prompts=replace(config.prompts, heldout=None),
        rollout=replace(
            config.rollout,
            prompts_per_step=PICTURES[0],
            group_size=PICTURES[1],
            batch_size=math.prod(PICTURES),
            num_inference_steps=STEPS.get(steps, steps),
            resolution=pixels,
        ),
        rewards=tuple(free(number, reward) for number, reward in enumerate(config.rewards)),
        algorithm=algorithm,
        optimizer=replace(config.optimizer, warmup_updates=0),
        training=replace(config.training, steps=1, micro_batch_size=math.prod(PICTURES), mixed_precision="no"),
        evaluation=EvaluationConfig(),
        checkpoint=CheckpointConfig(),
        output=OutputConfig(directory=str(folder), name="run", trackers=(), images_every=0),
    )


def test_the_classes():
    """Recipes that are not run themselves go the way of the one in front: other numbers, rewards and prompts."""
    assert sorted(name for names in CLASSES.values() for name in names) == list(RECIPES)
    alike = {first: [name.removeprefix("diffusion/") for name in rest] for first, *rest in CLASSES.values() if rest}
    assert alike == {
        "diffusion/awm_sd35m": ["awm_sd35m_ocr", "awm_sd35m_pickscore"],
        "diffusion/ddpo_sd15_aesthetic": ["ddpo_sd15_compressibility"],
        "diffusion/flow_grpo_sd35m_1gpu": [
            "flow_grpo_sd35m_geneval",
            "flow_grpo_sd35m_ocr",
            "flow_grpo_sd35m_pickscore",
        ],
        "diffusion/nft_sd35m_geneval": ["nft_sd35m_pickscore"],
    }


@pytest.mark.parametrize("name", CLASSES)
def test_a_step_on_the_miniature(name, miniatures, tmp_path, monkeypatch):
    """All checks pass, the loss is a number, weights move, and what the method logs is there."""
    monkeypatch.setattr(commands, "write_report", lambda folder: None)  # tested elsewhere; half of the time here
    config = loaded(name)
    family = family_of(config)
    small = scaled_down(config, family, miniatures(family), tmp_path)
    check_config(small)
    assert structure(small) == structure(config)
    folder = commands.train(small)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert last["step"] == 1
    assert math.isfinite(last["loss"])
    assert last["grad_norm"] > 0
    assert expected_metrics(config) <= set(last)
    assert (folder / "weights").is_dir()


def expected_metrics(config: DiffusionRun) -> set[str]:
    """What a run of this recipe logs, by what it has."""
    algorithm = config.algorithm
    found = {"matching_error"} if hasattr(algorithm, "times") else {"ratio_deviation"}
    if not isinstance(algorithm, OFFLINE):
        found |= {"reward", *(f"rewards/{reward_name(reward)}/mean" for reward in config.rewards)}
    if algorithm.kind.endswith("_dpo"):
        found |= {"rewards/margins", "rewards/accuracies"}
    if getattr(algorithm, "kl_beta", 0) > 0:
        found.add("kl")
    if getattr(algorithm, "lagged", None) is not None:
        found |= {"kl_lagged", "lagged_decay"}
    return found
