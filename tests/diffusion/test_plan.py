"""The plan: numbers by hand, the memory guess from file headers, differences from a recipe."""

import json
import struct
from dataclasses import replace

import pytest
from rich.console import Console

from align.config.shared import LoraConfig, TrainingConfig
from align.inspect.plan import print_plan
from diffusion.config import DiffusionRun, PromptsConfig, RolloutConfig, Sd3Model
from diffusion.memory import count_parameters, guess_memory, lora_parameters, read_shapes
from diffusion.models.targets import SD3
from diffusion.plan import nearest_even_prompts, plan


@pytest.fixture
def run(tmp_path):
    """6 training prompts, 2 held-out ones, 4 x 4 pictures a step."""
    (tmp_path / "train.txt").write_text("".join(f"prompt {i}\n" for i in range(6)))
    (tmp_path / "heldout.txt").write_text("x\ny\n")
    return DiffusionRun(
        prompts=PromptsConfig(train=str(tmp_path / "train.txt"), heldout=str(tmp_path / "heldout.txt")),
        rollout=RolloutConfig(prompts_per_step=4, group_size=4, batch_size=3),
        training=TrainingConfig(steps=30, micro_batch_size=3, updates_per_rollout=2),
        model=Sd3Model(path="owner/name"),
    )


def rows(made):
    return {row.label: (row.value, row.note) for section in made.sections for row in section.rows}


def test_numbers_by_hand(run):
    """16 pictures in 2 updates of 8 on 2 processes: 4 each, so 2 micro-batches of 3.

    Each process samples 8 pictures: 3 rollouts of 3.
    """
    found = rows(plan(run, processes=2))
    assert found["pictures"] == ("16", "4 prompts x 4")
    assert found["processes"] == ("2", "8 pictures each")
    assert found["rollout batches"][0] == "3"
    assert found["optimiser updates"] == ("60", "")  # of the whole run: 30 steps x 2
    assert found["micro-batches"][0] == "2"
    assert found["pictures to train on"] == ("480", "30 steps x 16")
    assert found["prompts used"] == ("120", "20 times through the 6 prompts")
    assert found["together"] == ("47", "752 a step")  # 44 + 3 for the second update; x 16
    assert found["evaluations"][0] == "2"
    assert "of 8 pictures" in found["evaluations"][1]  # 2 prompts x 4 seeds
    assert found["unknown"][1] == "the weights are not in a local folder"


def test_uneven_processes_are_explained_with_the_nearest_even_numbers(run):
    """3 processes x 2 updates = 6 parts; p x 4 must be a multiple of 6, so p a multiple of 3: 3 or 6."""
    note = rows(plan(run, processes=3))["processes"][1]
    assert note.startswith("4 to 6 pictures each")
    assert note.endswith("even with rollout.prompts_per_step = 3 or 6")


@pytest.mark.parametrize(
    ("prompts", "group", "parts", "expected"), [(4, 4, 6, [3, 6]), (8, 8, 64, [8]), (1, 4, 6, [3]), (5, 3, 7, [7])]
)
def test_nearest_even_prompts(prompts, group, parts, expected):
    assert nearest_even_prompts(prompts, group, parts) == expected


def test_differences_from_a_recipe(run):
    model = replace(run.model, lora=LoraConfig(targets=("a", "b")))
    made = plan(replace(run, model=model, recipe="diffusion/awm_sd35m"))
    found = {item.key: (item.recipe, item.ours) for item in made.differences}
    assert found["rollout.group_size"] == ("24", "4")
    assert found["training.mixed_precision"] == ("fp16", "no")
    assert found["rewards.0"][0].startswith("{function: http, name: geneval, weight: 1.0")
    assert found["rewards.0"][1] == "–"
    assert found["rollout.resolution"] == ("512", "null")
    assert "algorithm.weighting" not in found
    assert found["model.lora.targets"] == ("attention", '["a", "b"]')
    assert not any(key.startswith(("output.", "recipe")) for key in found)


def test_a_recipe_does_not_differ_from_itself():
    from align.config.load import load_config

    config = replace(load_config("diffusion/awm_sd35m", check=False), recipe="diffusion/awm_sd35m")
    assert plan(config).differences == ()


def test_text_and_json(run):
    made = plan(replace(run, recipe="diffusion/awm_sd35m"), processes=2)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - closed below
    print_plan(made, console)
    console.file.close()
    text = console.export_text()
    for section in made.sections:
        assert section.title in text
        for row in section.rows:
            assert row.label in text
    assert "differences from the recipe diffusion/awm_sd35m" in text
    data = json.loads(json.dumps(made.to_json()))
    assert set(data) == {"title", "sections", "recipe", "differences"}
    assert all(len(row) == 3 for section in data["sections"] for row in section["rows"])
    assert all(len(item) == 3 for item in data["differences"])


def write_safetensors(path, shapes):
    """A file with a true header and no data: the plan reads headers only."""
    header = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text)


SHAPES = {
    "transformer_blocks.0.attn.to_q.weight": (10, 20),
    "transformer_blocks.0.attn.to_q.bias": (10,),
    "transformer_blocks.0.attn.to_out.0.weight": (10, 10),
    "transformer_blocks.0.ff.net.2.weight": (5, 4),
    "pos_embed.proj.weight": (10, 4, 2, 2),
    "proj_out.weight": (3, 10),
}


@pytest.fixture
def folder(tmp_path):
    """A network of 200 + 10 + 100 + 20 + 160 + 30 = 520 parameters, a text encoder of 50, an autoencoder of 40."""
    model = tmp_path / "model"
    write_safetensors(model / "transformer" / "diffusion_pytorch_model.safetensors", SHAPES)
    write_safetensors(model / "text_encoder" / "model.safetensors", {"w": (50,)})
    write_safetensors(model / "vae" / "diffusion_pytorch_model.safetensors", {"w": (40,)})
    settings = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 5, "patch_size": 2, "sample_size": 8}
    (model / "transformer" / "config.json").write_text(json.dumps(settings))
    (model / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [1, 2, 3, 4]}))
    return model


def test_parameters_from_headers(folder):
    shapes = read_shapes(folder / "transformer")
    assert shapes == SHAPES
    assert count_parameters(shapes) == 520


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("attention", 3 * (30 + 20)),  # to_q: 10 + 20, to_out.0: 10 + 10
        ("feed_forward", 3 * 9),
        ("all_linear", 3 * (30 + 20 + 9)),  # proj_out is no block
        (("to_q",), 3 * 30),
        (("q",), 0),  # endings are whole names
    ],
)
def test_adapter_parameters_by_hand(targets, expected):
    assert lora_parameters(SHAPES, LoraConfig(rank=3, targets=targets), SD3) == expected


def test_memory_by_hand(folder):
    """LoRA rank 3 on attention: 150 trained. Weights: 520 + 50 frozen, 40 autoencoder, 150 adapters, 4 bytes each.

    Gradients and Adam: 12 x 150. Copies (moving average, lagged policy): 2 x 4 x 150. Activations: 2 pictures x 6
    times, (8/2)^2 + 77 = 93 tokens, width 10, one layer, 62 bytes, twice for 32-bit numbers.
    """
    config = DiffusionRun(model=Sd3Model(lora=LoraConfig(rank=3)), training=TrainingConfig(micro_batch_size=2))
    memory = guess_memory(config, folder)
    assert (memory.network, memory.trained) == (520, 150)
    assert memory.weights == 4 * (520 + 50 + 40 + 150)
    assert memory.optimizer == 12 * 150
    assert memory.copies == 2 * 4 * 150
    assert memory.activations == 12 * 93 * 10 * 62 * 2
    assert memory.total == 4 * 760 + 1800 + 1200 + 12 * 93 * 1240


def test_full_fine_tuning_needs_a_copy_of_the_base(folder):
    """All 520 trained in float32; copies: moving average, lagged policy and the base model, 3 x 4 x 520."""
    config = DiffusionRun(model=Sd3Model(lora=None, dtype="bfloat16"))
    memory = guess_memory(config, folder)
    assert memory.trained == 520
    assert memory.weights == 4 * 520 + 2 * 50 + 4 * 40
    assert memory.copies == 3 * 4 * 520


def test_checkpointing_and_half_precision_save_activations(folder):
    def activations(**training):
        return guess_memory(DiffusionRun(training=TrainingConfig(**training)), folder).activations

    assert activations(mixed_precision="bf16") * 2 == activations()
    assert activations(gradient_checkpointing=True) / activations() == 64 / 62  # one layer: nothing to save


def test_activations_are_of_the_pictures_that_a_process_has(folder):
    """2 x 4 pictures on 4 processes are 2 each, however large a micro-batch might be."""
    run = DiffusionRun(rollout=RolloutConfig(prompts_per_step=2, group_size=4))
    assert guess_memory(run, folder, processes=4).activations == guess_memory(run, folder).activations // 4


def test_a_folder_that_cannot_be_read_gives_no_guess(tmp_path, folder):
    assert guess_memory(DiffusionRun(), tmp_path / "nothing") is None
    (folder / "transformer" / "config.json").write_text("{}")
    assert guess_memory(DiffusionRun(), folder) is None
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    assert guess_memory(DiffusionRun(), folder) is None


def test_adapts_takes_weights_only():
    assert SD3.adapts("attention", "transformer_blocks.3.attn.to_q.weight")
    assert not SD3.adapts("attention", "transformer_blocks.3.attn.to_q.bias")
    assert not SD3.adapts("attention", "transformer_blocks.3.attn2.to_q.weight")


def test_heldout_prompts_that_are_trained_on_are_shown(run, tmp_path):
    assert "not held out" not in rows(plan(run))
    (tmp_path / "heldout.txt").write_text("x\nprompt 3\nprompt 3\n")
    assert rows(plan(run))["not held out"][0] == "1"
