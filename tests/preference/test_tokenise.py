"""Token ids by hand, and what holds for every tokenizer: one begin token, an end, the boundary by ids, lengths."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.errors import AlignError
from preference.config import PairsConfig
from preference.data import read_pairs, read_responses
from preference.formats import TextRow, Unusable, normalise
from preference.templates import Templates
from preference.tokenise import FULL, LONG, SAME, tokenise_pairs, tokenise_prompts, tokenise_responses

from . import tokenizers

SIDES = ("chosen", "rejected")


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def chat(prompt="hi", chosen="ok", rejected="no"):
    return {"prompt": user(prompt), "chosen": assistant(chosen), "rejected": assistant(rejected)}


def plain(prompt="hi", chosen=" ok", rejected=" no"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


@pytest.fixture
def tokens(tmp_path):
    """Function of rows, tokenizer and settings -> `TokenPairs`."""

    def make(rows, tokenizer, **settings):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows])))
        config = PairsConfig(train=str(path), **settings)
        return tokenise_pairs(read_pairs(config.train, config), tokenizer, config)

    return make


def shown(tokenizer, found, row=0):
    """Prompt, chosen, rejected as text, special tokens included."""
    return tuple(tokenizer.decode(ids[row]) for ids in (found.prompt_ids, found.chosen_ids, found.rejected_ids))


# --- one begin token, one end token -----------------------------------------------------------------------------------


def test_plain_text_by_hand(tokens):
    """Merges th+e, i+n, ca+t and ' a' are known: <s>, the, ' a', i.e. 'the a' is three tokens with the begin token."""
    tokenizer = tokenizers.llama_like()
    found = tokens(plain("the", " a", " ok"), tokenizer)
    ids = tokenizer.convert_tokens_to_ids
    assert found.prompt_ids[0].tolist() == ids(["<s>", "the"])
    assert found.chosen_ids[0].tolist() == ids(["Ġa", "<|eot|>"])
    assert found.rejected_ids[0].tolist() == ids(["Ġ", "ok", "<|eot|>"])
    assert found.prompt_ids[0].dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "prompt", "chosen"),
    [
        ("llama", "<s><|start|>user|hi<|eot|><|start|>assistant|", "ok<|eot|>"),
        ("qwen", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "ok<|im_end|>\n"),
        ("gemma", "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "ok<end_of_turn>\n"),
    ],
)
def test_chats(tokens, name, prompt, chosen):
    tokenizer = tokenizers.ALL[name]()
    assert shown(tokenizer, tokens(chat(), tokenizer))[:2] == (prompt, chosen)


@pytest.mark.parametrize("name", list(tokenizers.ALL))
@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_one_begin_token_and_an_end(tokens, name, kind):
    tokenizer = tokenizers.ALL[name]()
    if kind == "chat" and tokenizer.chat_template is None:
        with pytest.raises(AlignError, match=r"no chat template"):
            tokens(chat(), tokenizer)
        return
    found = tokens({"plain": plain, "chat": chat}[kind](), tokenizer)
    whole = [*found.prompt_ids[0].tolist(), *found.chosen_ids[0].tolist()]
    begins = {"llama": "<s>", "gemma": "<bos>"}.get(name)
    if begins:
        assert whole.count(tokenizer.convert_tokens_to_ids(begins)) == 1
        assert whole[0] == tokenizer.convert_tokens_to_ids(begins)
    ends = {"gemma": "<end_of_turn>"}.get(name) if kind == "chat" else None
    assert found.chosen_ids[0].tolist().count(tokenizer.convert_tokens_to_ids(ends or tokenizer.eos_token)) == 1
    assert "answers without an end token" not in found.report.notes


def test_a_begin_token_that_stands_in_the_text_is_not_doubled(tokens):
    """Texts that were templated elsewhere hold it already."""
    tokenizer = tokenizers.llama_like()
    found = tokens(plain("<s>hi"), tokenizer)
    assert shown(tokenizer, found)[0] == "<s>hi"


def test_a_begin_token_that_the_template_forgets_is_put_there(tokens):
    tokenizer = tokenizers.llama_like(template=tokenizers.LLAMA.replace("{{ bos_token }}", ""))
    found = tokens(chat(), tokenizer)
    assert shown(tokenizer, found)[0].startswith("<s><|start|>user")
    assert found.report.notes == {"begin tokens put before or taken from the texts": 1}


def test_an_end_token_in_the_text_is_not_doubled(tokens):
    tokenizer = tokenizers.llama_like()
    assert shown(tokenizer, tokens(plain(chosen=" ok<|eot|>"), tokenizer))[1:] == (" ok<|eot|>", " no<|eot|>")


def test_tokenizers_that_add_an_end_token_themselves(tokens):
    """The prompt must not end with it: the model would never see a prompt like that again."""
    tokenizer = tokenizers.llama_like(adds_eos=True)
    assert shown(tokenizer, tokens(plain(), tokenizer)) == ("<s>hi", " ok<|eot|>", " no<|eot|>")


def test_append_eos(tokens):
    gemma, qwen = tokenizers.gemma_like(), tokenizers.qwen_like()
    assert shown(gemma, tokens(chat(), gemma, append_eos="always"))[1] == "ok<end_of_turn>\n<eos>"
    assert shown(qwen, tokens(chat(), qwen, append_eos="always"))[1] == "ok<|im_end|>\n"
    found = tokens(plain(), qwen, append_eos="never")
    assert shown(qwen, found)[1] == " ok"
    assert found.report.notes == {"answers without an end token": 2}


def test_no_end_token_at_all(tokens):
    tokenizer = tokenizers.llama_like(eos=None)
    with pytest.raises(AlignError, match=r"EOS, but it has none") as caught:
        tokens(plain(), tokenizer)
    assert "data.append_eos: never" in caught.value.way_out


def test_newline_behind_the_end(tokens):
    """ChatML's newline is trained, as TRL does, unless it is asked off; the average changes, not the end token."""
    tokenizer = tokenizers.qwen_like()
    assert shown(tokenizer, tokens(chat(), tokenizer, strip_after_eos=True))[1:] == ("ok<|im_end|>", "no<|im_end|>")


def test_an_empty_prompt_has_a_begin_token(tokens):
    gpt2 = tokenizers.gpt2_like()
    assert shown(gpt2, tokens(plain(""), gpt2))[:2] == ("<|endoftext|>", " ok<|endoftext|>")
    with pytest.raises(AlignError, match=r"prompt is empty, and the tokenizer has no begin token"):
        tokens(plain(""), tokenizers.qwen_like())


# --- where the prompt ends --------------------------------------------------------------------------------------------


def test_answers_that_begin_alike_keep_their_beginnings(tokens):
    tokenizer = tokenizers.qwen_like()
    found = tokens([chat(chosen="the cat", rejected="the hat"), plain("a", " the cat", " the hat")], tokenizer)
    assert shown(tokenizer, found, 0)[1:] == ("the cat<|im_end|>\n", "the hat<|im_end|>\n")
    assert shown(tokenizer, found, 1)[1:] == (" the cat<|im_end|>", " the hat<|im_end|>")


def test_a_merge_at_the_boundary(tokens):
    """'ca' + 't' is one token, 'ca' + 'p' two: the shared prompt ends before 'ca', which both answers then hold."""
    tokenizer = tokenizers.qwen_like()
    found = tokens(plain("a ca", "t", "p"), tokenizer)
    assert shown(tokenizer, found) == ("a ", "cat<|im_end|>", "cap<|im_end|>")
    assert found.report.notes == {"prompts whose last token merges with the answer": 1}


def test_a_generation_prompt_of_its_own(tokens):
    """Gemma-like: the prompt promises a space behind the role's newline, and the answer stands there without one."""
    tokenizer = tokenizers.gemma_like()
    found = tokens(chat(), tokenizer)
    assert found.report.notes == {"answers begun otherwise than the generation prompt": 1}
    prompts = tokenise_prompts(read_like(chat()), tokenizer, PairsConfig())
    assert tokenizer.decode(prompts.prompt_ids[0]).endswith("model\n ")


def read_like(row):
    """`Texts` of one row, without a file."""
    from preference.data import DataReport, Texts

    made = normalise(row["prompt"], [row[name] for name in SIDES], SIDES, row)
    return Texts(
        rows=(made,), numbers=(0,), places=("row 0",), columns={}, report=DataReport(source="here", read=1, used=1)
    )


def test_a_template_that_changes_the_prompt(tokens):
    tokenizer = tokenizers.qwen_like(template=tokenizers.COUNTING)
    with pytest.raises(AlignError, match=r"changes the prompt when an answer stands behind it: '1 turns.* '2 turns"):
        tokens(chat(), tokenizer)


def test_template_options_of_run_and_row():
    tokenizer = tokenizers.qwen_like()
    row = TextRow(prompt=tuple(user("hi")))
    assert not Templates(tokenizer, {}).render(row).prompt.endswith("</think>")
    assert Templates(tokenizer, {"enable_thinking": False}).render(row).prompt.endswith("<think></think>")
    own = TextRow(prompt=tuple(user("hi")), template_options={"enable_thinking": True})
    assert not Templates(tokenizer, {"enable_thinking": False}).render(own).prompt.endswith("</think>")


def test_tools_reach_the_template():
    tokenizer = tokenizers.llama_like()
    row = TextRow(prompt=tuple(user("hi")), tools=({"name": "clock"},))
    assert Templates(tokenizer, {}).render(row).prompt.startswith('<s><|start|>tools|[{"name": "clock"}]<|eot|>')


def test_what_a_template_refuses(tokens):
    row = {"prompt": [{"role": "system", "content": "be kind"}, *user("hi")], **{k: chat()[k] for k in SIDES}}
    with pytest.raises(AlignError, match=r"pairs.jsonl:1: the chat template refuses it: no system turns"):
        tokens(row, tokenizers.gemma_like())
    found = tokens([row, chat()], tokenizers.gemma_like(), bad_rows="skip")
    assert found.rows == [1]
    assert found.report.dropped == {"not usable": 1}
    assert "no system turns" in found.report.examples[0]


def test_an_answer_that_has_been_begun(tokens):
    """A prompt that ends with a turn of the assistant is continued in that turn."""
    tokenizer = tokenizers.qwen_like()
    row = chat(chosen=" cat", rejected=" hat") | {"prompt": [*user("hi"), *assistant("the")]}
    assert shown(tokenizer, tokens(row, tokenizer)) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nthe",
        " cat<|im_end|>\n",
        " hat<|im_end|>\n",
    )


@given(
    prompt=st.text(alphabet="atheinc ok", min_size=1, max_size=12),
    answers=st.lists(st.text(alphabet="atheinc ok", min_size=1, max_size=12), min_size=2, max_size=2, unique=True),
    name=st.sampled_from(list(tokenizers.ALL)),
    as_chat=st.booleans(),
)
def test_prompt_and_answer_are_the_whole_text(prompt, answers, name, as_chat):
    """Put together again, prompt and answer are the ids of the whole text, whatever was merged."""
    tokenizer = tokenizers.ALL[name]()
    as_chat = as_chat and tokenizer.chat_template is not None
    row = chat(prompt, *answers) if as_chat else plain(prompt, *answers)
    try:
        texts = read_like(row)
        found = tokenise_pairs(texts, tokenizer, PairsConfig(append_eos="never"))
    except (Unusable, AlignError):
        assert not all(text.strip() for text in (prompt, *answers)) or len({a.strip() for a in answers}) == 1
        return
    whole = Templates(tokenizer, {}).render(texts.rows[0]).wholes
    for text, ids in zip(whole, (found.chosen_ids, found.rejected_ids), strict=True):
        expected = tokenizer(text, add_special_tokens=not as_chat)["input_ids"]
        assert [*found.prompt_ids[0].tolist(), *ids[0].tolist()][-len(expected) :] == expected


# --- lengths ----------------------------------------------------------------------------------------------------------


def test_prompts_cut_at_either_end(tokens):
    """<s> and ten letters, limit 4: the end keeps the begin token and three letters, the start the first four."""
    tokenizer = tokenizers.llama_like()
    row = plain("zyxwvutsrq", " ok", " no")
    lengths = {"max_prompt_length": 4, "max_length": 12}
    found = tokens(row, tokenizer, **lengths)
    assert shown(tokenizer, found) == ("<s>srq", " ok<|eot|>", " no<|eot|>")
    assert found.report.notes == {"prompts cut": 1}
    assert shown(tokenizer, tokens(row, tokenizer, long_prompts="keep_start", **lengths))[0] == "<s>zyx"
    qwen = tokenizers.qwen_like()
    assert shown(qwen, tokens(row, qwen, **lengths))[0] == "tsrq"


def test_long_prompts_left_out_or_refused(tokens):
    rows = [plain("zyxwvutsrq"), plain("hi")]
    lengths = {"max_prompt_length": 4, "max_length": 12}
    found = tokens(rows, tokenizers.qwen_like(), long_prompts="skip", **lengths)
    assert (found.rows, found.report.dropped, found.report.used) == ([1], {LONG: 1}, 1)
    with pytest.raises(AlignError, match=r"1 row is too long:\n.*pairs.jsonl:1: 10 tokens") as caught:
        tokens(rows, tokenizers.qwen_like(), long_prompts="refuse", **lengths)
    assert "data.max_prompt_length" in caught.value.way_out


def test_a_cut_answer_gets_no_end_token(tokens):
    """Prompt 2, limit 6: four tokens of the answer stay, and the end token is not put there again."""
    tokenizer = tokenizers.qwen_like()
    found = tokens(plain("zy", "abcdef", "gh"), tokenizer, max_prompt_length=4, max_length=6)
    assert shown(tokenizer, found) == ("zy", "abcd", "gh<|im_end|>")
    assert found.report.notes == {"answers cut": 1}
    assert found.report.summary() == "1 of 1 rows, 1 answers cut"
    assert found.longest() == 6


def test_nothing_left_of_an_answer(tokens):
    tokenizer = tokenizers.qwen_like()
    rows = [plain("zyxw"), plain("z")]
    found = tokens(rows, tokenizer, max_prompt_length=4, max_length=4)
    assert (found.rows, found.report.dropped) == ([1], {FULL: 1})
    with pytest.raises(AlignError, match=r"no row is left \(1 left out: no room for an answer"):
        tokens(rows[:1], tokenizer, max_prompt_length=4, max_length=4)


def test_answers_that_the_cut_makes_equal(tokens):
    tokenizer = tokenizers.qwen_like()
    rows = [plain("z", "abcdefg", "abcdefh"), plain("z")]
    found = tokens(rows, tokenizer, max_prompt_length=2, max_length=5)
    assert found.report.dropped == {SAME: 1}
    assert found.report.summary() == f"1 of 2 rows, 1 left out: {SAME}"


# --- what is handed on ------------------------------------------------------------------------------------------------


def test_columns_rows_and_selection(tokens):
    rows = [{**plain(f"q{i}"), "topic": i} for i in range(4)]
    found = tokens(rows, tokenizers.qwen_like())
    some = found.select([3, 1])
    assert (some.rows, some.prompts, some.columns["topic"]) == ([3, 1], ["q3", "q1"], [3, 1])
    assert torch.equal(some.chosen_ids[0], found.chosen_ids[3])
    assert some.chosen == [" ok", " ok"]
    assert len(some) == 2


def test_fingerprint_follows_what_changes_log_probabilities(tokens):
    tokenizer = tokenizers.qwen_like()
    rows = [plain("a"), plain("b")]
    first = tokens(rows, tokenizer).fingerprint()
    assert first == tokens([{**row, "topic": 1} for row in rows], tokenizer).fingerprint()
    others = [
        tokens(rows[::-1], tokenizer),
        tokens(rows, tokenizer, max_length=900),
        tokens(rows, tokenizers.qwen_like(template=tokenizers.CHATML + " ")),
        tokens([plain("a"), plain("b", " on")], tokenizer),
        tokens(rows[:1], tokenizer),
    ]
    assert len({first, *(other.fingerprint() for other in others)}) == 6


def test_token_boundaries_are_in_the_fingerprint(tokens):
    """A prompt 'ab' with the answer 'c' is not a prompt 'a' with the answer 'bc'."""
    tokenizer = tokenizers.qwen_like()
    first, second = (tokens(plain(p, c, r), tokenizer) for p, c, r in (("ab", "cx", "dx"), ("a", "bcx", "bdx")))
    assert first.fingerprint() != second.fingerprint()


def test_single_answers(tmp_path):
    tokenizer = tokenizers.qwen_like()
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"messages": [*user("hi"), *assistant("a"), *user("and?"), *assistant("b")]}) + "\n")
    found = tokenise_responses(read_responses(str(path)), tokenizer, PairsConfig())
    assert tokenizer.decode(found.prompt_ids[0]).endswith("and?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(found.response_ids[0]) == "b<|im_end|>\n"
    path.write_text(json.dumps({"text": "the cat"}) + "\n")
    llama = tokenizers.llama_like()
    found = tokenise_responses(read_responses(str(path)), llama, PairsConfig())
    assert (llama.decode(found.prompt_ids[0]), llama.decode(found.response_ids[0])) == ("<s>", "the cat<|eot|>")


def test_agrees_with_trl_on_its_own_format(tokens):
    """Ids of TRL's way for conversations: template with generation prompt, template of the whole, common prefix."""
    for name in ("llama", "qwen"):
        tokenizer = tokenizers.ALL[name]()
        found = tokens(chat("the cat", "in the hat", "ok"), tokenizer)
        prompt = tokenizer.apply_chat_template(user("the cat"), add_generation_prompt=True, tokenize=True)
        whole = tokenizer.apply_chat_template([*user("the cat"), *assistant("in the hat")], tokenize=True)
        prompt, whole = (ids["input_ids"] if hasattr(ids, "keys") else ids for ids in (prompt, whole))
        assert found.prompt_ids[0].tolist() == prompt
        assert [*prompt, *found.chosen_ids[0].tolist()] == whole
