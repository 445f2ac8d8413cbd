"""The committed weights and pairs: what they promise, under the loader and the reader that runs use."""

import json
import random

import pytest
import torch
import transformers

from preference.config import CausalLm, PairsConfig
from preference.data import read_pairs
from preference.models.load import load
from preference.tiny import evaluate, model_path, own_answers, pairs_path, reward, world
from preference.tokenise import tokenise_pairs

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def model():
    return load(CausalLm(path="builtin:tiny"))


def rows(split):
    return [json.loads(line) for line in pairs_path(split).read_text(encoding="utf-8").splitlines()]


def test_the_folder_is_small_and_holds_only_data() -> None:
    files = [file for file in model_path().rglob("*") if file.is_file()]
    pairs = [pairs_path(split) for split in ("train", "heldout")]
    assert sum(file.stat().st_size for file in (*files, *pairs)) <= 10 * MEBIBYTE
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja"}
    assert not [file for file in files if file.suffix == ".json" and "_name_or_path" in file.read_text()]


def test_it_is_a_llama_of_transformers() -> None:
    network = transformers.AutoModelForCausalLM.from_pretrained(model_path())
    assert type(network).__name__ == "LlamaForCausalLM"
    assert network.generation_config.eos_token_id == network.config.eos_token_id


def test_it_answers_in_its_wording_and_is_right_in_about_half(model) -> None:
    """Of 72 answers, a coin would give 36 with a standard deviation of 4; the documented share is over more."""
    table = evaluate.measure(model, per_class=12, temperature=0.0, seed=3)
    assert 0.25 <= table[-1].correct.mean <= 0.75
    assert table[-1].correct.n == 72


def test_the_near_misses_are_what_it_says_when_it_is_wrong(model) -> None:
    """Wrong by the next word of a list: nearly all answers are the truth or the near miss, in an accepted wording."""
    from preference.tiny import slips, wording

    known = 0
    for kind in world.CLASSES:
        prompts = evaluate.heldout_prompts(kind, 12, seed=4)
        for prompt, said in zip(prompts, evaluate.answers(model, prompts), strict=True):
            note, kind = world.parse(prompt)
            answers = (world.answer(note, kind), slips.near_miss(note, kind))
            accepted = {text for given in answers for text in wording.statements(note, kind, given)}
            known += any(text in said for text in accepted)
    assert known >= 68


def test_generation_of_transformers_stops_at_the_end_of_the_turn(model) -> None:
    prompt = evaluate.heldout_prompts("who", 1)[0]
    ids = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    found = model.network.generate(**ids, max_new_tokens=64, do_sample=False)[0, ids["input_ids"].shape[1] :]
    ours = evaluate.answers(model, [prompt])
    assert int(found[-1]) == model.tokenizer.eos_token_id
    assert model.tokenizer.decode(found, skip_special_tokens=True) == ours[0]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_pair_is_a_right_and_a_wrong_answer_of_its_side(split) -> None:
    for row in rows(split):
        prompt = row["prompt"][-1]["content"]
        note, kind = world.parse(prompt)
        assert world.held_out(note) is (split == "heldout")
        assert kind == row["class"]
        texts = [row[side][0]["content"] for side in ("chosen", "rejected")]
        assert reward.correct(prompts=[prompt] * 2, completions=texts) == [1.0, 0.0]


def test_no_prompt_comes_twice() -> None:
    prompts = [row["prompt"][-1]["content"] for split in ("train", "heldout") for row in rows(split)]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_our_reader_uses_every_pair(model, split) -> None:
    settings = PairsConfig(max_length=256, max_prompt_length=192)
    texts = read_pairs(f"builtin:tiny/{split}", settings)
    pairs = tokenise_pairs(texts, model.tokenizer, settings)
    assert len(pairs) == len(rows(split))
    assert set(pairs.columns["class"]) == set(world.CLASSES)
    assert all(ids[-1] == model.tokenizer.eos_token_id for ids in (*pairs.chosen_ids, *pairs.rejected_ids))
    assert pairs.report.used == len(pairs)


def test_answers_of_one_verdict_make_no_pair() -> None:
    prompt = world.EXAMPLE
    rng = random.Random(0)
    assert own_answers.row_of(prompt, "who", ["Anna.", "Anna has them."], rng) is None
    assert own_answers.row_of(prompt, "who", ["Ben.", ""], rng) is None
    row = own_answers.row_of(prompt, "who", ["Ben.", "Anna."], rng)
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("Anna.", "Ben.")


def test_page_markers() -> None:
    page = f"a\n{evaluate.BEGIN}\nold\n{evaluate.END}\nb"
    assert evaluate.insert(page, "new") == f"a\n{evaluate.BEGIN}\nnew\n{evaluate.END}\nb"
    with pytest.raises(ValueError, match="expected a page with the lines"):
        evaluate.insert("a", "new")


def test_weights_are_finite(model) -> None:
    assert all(bool(torch.isfinite(weight).all()) for weight in model.network.parameters())
