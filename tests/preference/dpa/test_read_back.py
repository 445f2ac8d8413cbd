"""Directions that do not reach the model: dropped by a template, by a tokenizer, or cut off."""

from dataclasses import replace

import pytest
from tokenizers import Regex, normalizers

from align.errors import AlignError
from preference.config import TokensConfig
from preference.data import DataReport, Texts
from preference.dpa.config import DpaConfig
from preference.dpa.control import Control
from preference.dpa.read_back import check_read_back
from preference.formats import TextRow

from ..tokenizers import gemma_like, llama_like

SETTINGS = TokensConfig(max_length=300, max_prompt_length=200)
DEAF = "{% for m in messages %}{% if m['role'] != 'system' %}<|start|>{{ m['content'] }}<|eot|>{% endif %}{% endfor %}"


def prompts(*texts):
    rows = tuple(TextRow(prompt=({"role": "user", "content": text},)) for text in texts)
    return Texts(
        rows=rows,
        numbers=tuple(range(len(rows))),
        places=tuple(f"row {number}" for number in range(len(rows))),
        columns={},
        report=DataReport(source="here", read=len(rows), used=len(rows)),
    )


def check(tokenizer, texts=("hi",), settings=SETTINGS, vectors=((80, 60), (0, 100)), **algorithm):
    control = Control.of(DpaConfig(**algorithm), ("a", "b"))
    check_read_back(control, list(vectors), prompts(*texts), tokenizer, settings)


def test_a_tokenizer_that_keeps_everything():
    check(llama_like())
    check(llama_like(), placement="prefix")


def test_a_template_that_drops_system_turns():
    """The text is quoted that is left. Before the prompt it is read."""
    with pytest.raises(AlignError, match=r"does not come back .*`<s><\|start\|>hi<\|eot\|>`"):
        check(llama_like(template=DEAF))
    check(llama_like(template=DEAF), placement="prefix")


def test_a_template_that_refuses_system_turns():
    with pytest.raises(AlignError, match="no system turns"):
        check(gemma_like())
    check(gemma_like(), placement="prefix")


def test_a_tokenizer_without_digits():
    tokenizer = llama_like()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[0-9]"), "")
    with pytest.raises(AlignError, match=r"`.*80 x a \+ 60 x b.*` does not come back"):
        check(tokenizer)
    with pytest.raises(AlignError, match=r"write `algorithm.template` in others"):
        check(tokenizer)
    check(tokenizer, placement="none")  # nothing is to be read


def test_another_case_and_other_spaces_are_no_loss():
    tokenizer = llama_like()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    check(tokenizer)


def test_a_long_prompt_that_is_cut_at_its_start():
    """By byte-level tokens a prompt of 300 letters has more than 200; kept from its start it still says what for."""
    with pytest.raises(AlignError, match="1 of 2 prompts of here are cut at 200 tokens and lose their direction"):
        check(llama_like(), texts=("hi", "z" * 300))
    check(llama_like(), texts=("hi", "z" * 300), settings=replace(SETTINGS, long_prompts="keep_start"))
    check(llama_like(), texts=("hi", "z" * 300), settings=replace(SETTINGS, long_prompts="skip"))
