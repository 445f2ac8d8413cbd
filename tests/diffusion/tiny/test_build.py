"""The parts before training: vocabulary, shapes, and the start from zero."""

import pytest
import torch

from diffusion.tiny import build, world


@pytest.fixture(scope="module")
def tokenizer():
    return build.tokenizer()


class TestMerges:
    def test_worked_by_hand(self) -> None:
        """ "ab" gives (a, b</w>). "abc" has no known pair, so (a, b), then (ab, c</w>)."""
        assert build.merges(["ab", "abc"]) == [("a", "b</w>"), ("a", "b"), ("ab", "c</w>")]

    def test_a_word_that_contains_another(self) -> None:
        """ "bcd" is split by (b, c) already, so only (bc, d</w>) is new."""
        assert build.merges(["bcx", "bcd"])[2:] == [("bc", "d</w>")]


class TestTokenizer:
    def test_every_word_is_one_token(self, tokenizer) -> None:
        assert all(len(tokenizer(word).input_ids) == 3 for word in world.words())

    def test_the_longest_caption_fits(self, tokenizer) -> None:
        lengths = [len(tokenizer(text).input_ids) for kind in world.CLASSES for text in world.captions(kind)]
        assert max(lengths) == 13 <= build.CONTEXT_TOKENS

    def test_captions_differ_as_tokens(self, tokenizer) -> None:
        captions = [text for kind in world.CLASSES for text in world.captions(kind)]
        assert len({tuple(tokenizer(text).input_ids) for text in captions}) == len(captions)

    def test_other_text_falls_back_to_bytes(self, tokenizer) -> None:
        ids = tokenizer("zebra, été 9!").input_ids
        assert len(ids) > 10
        assert tokenizer.eos_token_id not in ids[:-1]  # no piece is unknown

    def test_it_survives_saving(self, tokenizer, tmp_path) -> None:
        tokenizer.save_pretrained(tmp_path)
        again = type(tokenizer).from_pretrained(tmp_path)
        assert again.model_max_length == build.CONTEXT_TOKENS
        assert all(again(text).input_ids == tokenizer(text).input_ids for text in world.captions("two"))


def test_autoencoder_shapes() -> None:
    model = build.autoencoder()
    with torch.no_grad():
        latents = model.encode(torch.zeros(2, 3, 64, 64)).latent_dist.mean
        assert latents.shape == (2, build.LATENT_CHANNELS, build.LATENT_SIDE, build.LATENT_SIDE)
        assert model.decode(latents).sample.shape == (2, 3, 64, 64)


def test_the_transformer_starts_from_zero() -> None:
    """All modulations and the last layer are zero, so the velocity is, whatever goes in."""
    model = build.transformer()
    with torch.no_grad():
        velocity = model(torch.randn(2, 16, 8, 8), torch.randn(2, 5, 128), torch.randn(2, 128), torch.ones(2)).sample
    assert velocity.shape == (2, 16, 8, 8)
    assert not velocity.any()
