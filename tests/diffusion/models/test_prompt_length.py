"""Prompts longer than the text encoders take: found before weights are loaded, refused or counted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from diffusion.commands import generate, train
from diffusion.config.models import FluxModel, Sd3Model, StableDiffusionModel
from diffusion.models.locate import ModelError
from diffusion.models.prompt_length import (
    Cut,
    check_prompt_lengths,
    count_tokens,
    cut_prompts,
    load_tokenizers,
    prompt_limits,
)

from .config import miniature_run
from .families import FAMILIES
from .miniature import CONTEXT, PROMPTS
from .miniature_unet import miniature_sd15_pipeline

LONG = "a red circle and a blue square and a green triangle and a red square"  # 15 words, begin and end: 17 of 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stable Diffusion without its weights: tokenizers and lists of parts only."""
    path = tmp_path_factory.mktemp("sd15")
    miniature_sd15_pipeline().save_pretrained(path)
    for weights in path.glob("*/*.safetensors"):
        weights.unlink()
    return path


def test_a_prompt_is_too_long_where_its_end_reaches_no_encoder():
    """Limits 4 and 6: lengths (3, 3) fit; (5, 5) fit the second; (7, 7) fit none; (3, 7) fit the first."""
    lengths = {"short": [3, 5, 7, 3], "long": [3, 5, 7, 7]}
    assert cut_prompts(lengths, {"short": 4, "long": 6}) == [Cut(row=2, tokens=7, limit=6)]
    assert cut_prompts(lengths, {"short": 4}) == [Cut(row=1, tokens=5, limit=4), Cut(row=2, tokens=7, limit=4)]


def test_limits_of_the_families():
    assert prompt_limits(Sd3Model(path="owner/name")) == {"tokenizer": None, "tokenizer_2": None, "tokenizer_3": 256}
    assert prompt_limits(Sd3Model(path="owner/name", max_sequence_length=0)) == {"tokenizer": None, "tokenizer_2": None}
    assert prompt_limits(Sd3Model()) == {"tokenizer": None, "tokenizer_2": None}  # the embedded model
    assert prompt_limits(FluxModel(path="owner/name", max_sequence_length=128))["tokenizer_2"] == 128


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_refuses_and_cuts(family, tmp_path):
    """A prompt of 400 words is too long for every miniature; its tokenizers are those that the limits name."""
    pipeline = family.pipeline(0)
    pipeline.save_pretrained(tmp_path)
    settings = family.settings_of(tmp_path)
    names = set(load_tokenizers(settings))
    assert names
    assert names <= {name for name in pipeline.components if name.startswith("tokenizer")}
    texts = [PROMPTS[0], "red " * 400]
    with pytest.raises(ModelError, match="here: 1 of 2 prompts") as error:
        check_prompt_lengths(settings, {"here": texts})
    assert "row 2 (40" in error.value.message
    assert "long_prompts: truncate" in error.value.way_out
    assert len(check_prompt_lengths(replace(settings, long_prompts="truncate"), {"here": texts})) == 1
    assert check_prompt_lengths(settings, {"here": PROMPTS[:1]}) == []


def test_tokens_by_hand(folder):
    """Words of the drawn world are one token each; begin and end are counted."""
    (tokenizer,) = load_tokenizers(StableDiffusionModel(path=str(folder))).values()
    assert count_tokens(tokenizer, ["a red circle", LONG, ""]) == [5, 17, 2]
    assert count_tokens(tokenizer, []) == []


def test_the_first_rows_are_named_and_the_others_counted(folder):
    settings = StableDiffusionModel(path=str(folder))
    with pytest.raises(ModelError) as error:
        check_prompt_lengths(settings, {"a.txt": [*PROMPTS, *[LONG] * 7], "b.txt": PROMPTS, "c.txt": [LONG]})
    message = error.value.message
    assert f"a.txt: 7 of 11 prompts are longer than the {CONTEXT} tokens" in message
    assert "row 5 (17 tokens), row 6 (17 tokens)" in message
    assert "row 9 (17 tokens) and 2 more" in message
    assert "b.txt" not in message
    assert "c.txt: 1 of 1 prompts" in message


def test_a_folder_without_tokenizers_is_a_clear_error(tmp_path):
    miniature_sd15_pipeline().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["tokenizer"][1] = "NoSuchTokenizer"
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="tokenizers of model"):
        check_prompt_lengths(StableDiffusionModel(path=str(tmp_path)), {"here": PROMPTS})


def test_a_run_with_a_long_prompt_is_refused_before_a_folder_is_made(tmp_path):
    config = miniature_run(tmp_path)
    (tmp_path / "train.txt").write_text("\n".join([*PROMPTS, LONG]))
    with pytest.raises(ModelError, match=r"train\.txt: 1 of 5 prompts"):
        train(config)
    assert not (tmp_path / "runs").exists()


def test_cut_prompts_are_told_once(tmp_path, capfd):
    config = miniature_run(tmp_path)
    config = replace(config, model=replace(config.model, long_prompts="truncate"))
    generate(config, prompts=[LONG, LONG + " left"], seeds=[1, 2], output=tmp_path / "pictures")
    told = capfd.readouterr()
    assert (told.out + told.err).count("prompts are longer than") == 1
    assert "truncated" not in told.out + told.err  # diffusers' own line for each prompt
