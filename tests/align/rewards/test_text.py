"""Rewards of texts: worked by hand; options that are refused; empty texts; the encoder against a slow loop."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.errors import AlignError
from align.packages import check_installed, folder_of
from align.rewards import readability, similarity
from align.rewards.find import BUILT_IN, find_function
from align.rewards.readability import EASE, Readability
from align.rewards.sentiment import Sentiment
from align.rewards.similarity import SentenceEncoder, Similarity, mean_pooled
from align.rewards.text import Brevity, LengthTarget, RegexMatch, TextLength, distinct, repetition


def test_repetition_by_hand():
    """ "a b a b a": the bigrams ab, ba, ab, ba are 4, distinct 2: 1 - 2/4. Three words have one trigram: 0."""
    texts = ["a b a b a", "A b a B a", "one two three", "one", "", "  "]
    assert repetition(completions=texts, n=2) == [0.5, 0.5, 0.0, 0.0, None, None]
    assert repetition(completions=["one two three"], n=3) == [0.0]
    assert repetition(completions=["x x x x"], n=1) == [0.75]
    assert distinct(completions=["x x x x", ""], n=1) == [0.25, None]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(1, 4))
def test_repetition_counts_what_a_loop_counts(words, n):
    seen, again, total = set(), 0, 0
    for start in range(len(words) - n + 1):
        gram = " ".join(words[start : start + n])
        total += 1
        again += gram in seen
        seen.add(gram)
    (found,) = repetition(completions=[" ".join(words)], n=n)
    assert found == pytest.approx(again / total if total else 0.0)


def test_lengths_by_hand():
    texts = ["one two three", "", "word"]
    assert TextLength()(completions=texts) == [3, 0, 1]
    assert TextLength(unit="characters")(completions=texts) == [13, 0, 4]
    assert LengthTarget(2)(completions=["a b", "a", "a b c", "a b c d e", ""]) == [1.0, 0.5, 0.5, 0.0, 0.0]
    assert Brevity(2)(completions=["a", "a b", "a b c d", "", " "]) == [1.0, 1.0, 0.5, None, None]


def test_tokens_are_counted_by_the_named_tokenizer(tmp_path):
    _tokenizer(["a", "##b", "c"]).save_pretrained(tmp_path)
    assert TextLength(unit="tokens", tokenizer=str(tmp_path))(completions=["ab c", ""]) == [3, 0]


def test_regex_match_by_hand():
    texts = ['{"a": 1}', "see {} here", " {} ", ""]
    assert RegexMatch(r"\{.*\}")(completions=texts) == [1, 1, 1, 0]
    assert RegexMatch(r"\{.*\}", entire=True)(completions=texts) == [1, 0, 1, 0]
    assert RegexMatch(r"\{.*\}", absent=True)(completions=texts) == [0, 0, 0, 1]
    assert RegexMatch("SEE", ignore_case=True)(completions=texts) == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RegexMatch("("), "regular expression"),
        (lambda: TextLength(unit="wrods"), "`words`?"),
        (lambda: TextLength(unit="tokens"), "tokenizer"),
        (lambda: TextLength(tokenizer="x"), "not used"),
        (lambda: Brevity(0), "positive"),
        (lambda: LengthTarget(-1), "positive"),
        (lambda: repetition(completions=["a"], n=0), "whole number"),
        (lambda: Sentiment(part="compond"), "`compound`?"),
        (lambda: Readability(formula="lex"), "`lix`?"),
        (lambda: Similarity(model="./nothing"), "`model`"),
        (lambda: folder_of("no_such_package_here", "pip install it", "the test"), "no_such_package_here"),
        (lambda: check_installed(("no_such_package_here",), "pip install it", "the test"), "no_such_package_here"),
    ],
)
def test_a_mistake_is_told(make, words):
    with pytest.raises(AlignError) as found:
        make()
    assert words in str(found.value)


def test_sentiment_orders_texts_and_leaves_out_empty_ones():
    good, bad, none = Sentiment()(completions=["I love this, thank you!", "This is horrible and sad.", " "])
    assert good > 0.5
    assert bad < -0.5
    assert none is None
    assert Sentiment(part="negative")(completions=["I love this!"]) == [0.0]


def test_readability_is_minus_the_grade():
    """ARI = 4.71 characters / words + 0.5 words / sentences - 21.43; textstat counts the full stop as a character:
    4.71 * 10/3 + 0.5 * 3 - 21.43 = -4.23."""
    assert Readability()(completions=["The cat sat.", ""]) == [pytest.approx(4.23), None]
    assert Readability(raw=True)(completions=["The cat sat."]) == [pytest.approx(-4.23)]
    easy, hard = Readability(formula="coleman_liau_index")(
        completions=[
            "We go out. It is fun. We run.",
            "Institutional considerations necessitate comprehensive analysis.",
        ]
    )
    assert easy > hard


def test_a_formula_whose_dictionary_is_missing_is_refused_before_the_run(monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(AlignError, match="cmudict"):
        Readability(formula="flesch_reading_ease")
    assert set(readability.SYLLABLES) < set(EASE)


def test_mean_pooling_by_hand():
    """Row 0: the mean of (3, 0) and (0, 4) is (1.5, 2), of length 2.5 -> (0.6, 0.8). Row 1 has one token."""
    states = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 2.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1], [1, 0]])
    assert torch.allclose(mean_pooled(states, mask), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_similarity_is_the_cosine_of_each_text_alone(tmp_path):
    """Batched and padded, with equal texts encoded once: the same as one text at a time."""
    folder = _encoder(tmp_path)
    prompts, answers = ["a b", "c", "a b"], ["a b c d", "", "a b"]
    found = Similarity(model=folder, batch_size=2, device="cpu")(prompts=prompts, completions=answers)
    encoder = SentenceEncoder.load(folder, torch.device("cpu"), 256)

    def cosine(first, second):
        one, two = (encoder.encode([text])[0].double() for text in (first, second))
        return math.fsum((one * two).tolist()) / math.sqrt(float((one**2).sum() * (two**2).sum()))

    assert found[1] is None
    assert found[0] == pytest.approx(cosine("a b", "a b c d"), abs=1e-5)
    assert found[2] == pytest.approx(1.0, abs=1e-5)


def test_similarity_with_a_column(tmp_path):
    reward = Similarity(model=_encoder(tmp_path), column="reference", device="cpu")
    found = reward(prompts=["c", "c"], completions=["a b", "a b"], reference=["a b", None])
    assert found == [pytest.approx(1.0, abs=1e-5), None]
    with pytest.raises(AlignError, match="`reference`"):
        reward.check_rows(prompts=["c"], refrence=["a"])


def test_the_packaged_encoder_knows_what_belongs_together():
    pytest.importorskip(similarity.PACKAGE)
    same, other = Similarity(device="cpu")(
        prompts=["How do I cook rice?"] * 2,
        completions=["Boil the rice in water until it is soft.", "The stock market fell by three percent."],
    )
    assert same > other + 0.2


@pytest.mark.parametrize("name", ["text_length", "length_target", "brevity", "repetition", "regex_match", "sentiment"])
def test_they_are_built_in(name):
    assert callable(find_function(name))


def test_a_package_is_found_without_running_its_code():
    code = (
        "import sys; from align.packages import folder_of\n"
        "assert folder_of('hypothesis', '', 'the test').name == 'hypothesis'\n"
        "assert 'hypothesis' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"readability", "similarity"} <= set(BUILT_IN)


def _tokenizer(words):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


def _encoder(folder):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=0
    )
    BertModel(config).save_pretrained(folder)
    _tokenizer(["a", "b", "c", "d"]).save_pretrained(folder)
    return str(folder)
