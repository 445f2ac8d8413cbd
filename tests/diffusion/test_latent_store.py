"""Latents of stored pictures: how a picture is cut, encoded once, kept within a limit, kept on disk."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from align.errors import AlignError
from diffusion.config import ImagesConfig, PairsConfig
from diffusion.latent_store import LatentStore, autoencoder_fingerprint, fitted, native_resolution, open_picture, refuse
from diffusion.stored_pictures import Unusable, read_pictures

from .models.miniature import miniature
from .stored import png, write_pairs


class Counting:
    """The miniature, counting what it encodes."""

    def __init__(self, seed: int = 0) -> None:
        self.model, self.encoded = miniature(seed), 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode_images(self, images):
        self.encoded += len(images)
        return self.model.encode_images(images)


def store(folder, model, **settings):
    config = PairsConfig(path=str(folder / "pairs.jsonl"), **settings)
    return LatentStore(read_pictures(config), model, config, None)


def test_fitted_by_hand():
    """40 x 20, left half black, right half white, to side 10: scaled to 20 x 10, of that columns 5 to 15."""
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (20, 0, 40, 20))
    found = fitted(image, 10)
    assert found.size == (10, 10)
    assert [found.getpixel((x, 5))[0] > 127 for x in (0, 3, 6, 9)] == [False, False, True, True]
    assert fitted(image, 60).size == (60, 60)


def test_pictures_of_other_modes_become_rgb():
    assert open_picture(png(7)).mode == "RGB"
    with pytest.raises(Unusable, match="no picture"):
        open_picture(b"text")
    with pytest.raises(Unusable, match="no picture"):
        open_picture(png(7)[:40])


def test_native_resolution():
    """8 x 8 latents of a model whose autoencoder halves once."""
    assert native_resolution(miniature()) == 16


def test_latents_are_those_of_the_model(tmp_path):
    write_pairs(tmp_path)
    model = miniature()
    encoded = store(tmp_path, model)([3, 0])
    assert encoded.latents.shape == (2, 2, *model.latent_shape())
    assert encoded.usable.all()
    for row, number in enumerate((3, 0)):
        for side, tone in enumerate((200 + number, 20 + number)):
            expected = model.encode_images([Image.new("RGB", (16, 16), (tone,) * 3)])[0]
            assert_close(encoded.latents[row, side], expected, rtol=1e-5, atol=1e-5)


def test_each_picture_is_encoded_once_and_alone(tmp_path):
    write_pairs(tmp_path)
    model = Counting()
    latents = store(tmp_path, model)
    together = latents([0, 1, 2, 0])
    assert model.encoded == 6
    latents([2, 1])
    assert model.encoded == 6
    assert torch.equal(together.latents[0], together.latents[3])
    assert torch.equal(together.latents[1], store(tmp_path, miniature())([1]).latents[0])


def test_memory_is_bounded(tmp_path, monkeypatch):
    """A pair is 2 x 4 x 8 x 8 float32 = 2 KiB; three fit, the least recently used goes."""
    write_pairs(tmp_path)
    model = Counting()
    latents = store(tmp_path, model)
    monkeypatch.setattr(latents, "_limit", 3 * 2048)
    for row in (0, 1, 2, 0, 3):  # 1 goes
        latents([row])
    assert (model.encoded, len(latents._rows), latents._bytes) == (8, 3, 3 * 2048)
    latents([0, 2, 3])
    assert model.encoded == 8
    latents([1])
    assert model.encoded == 10


def test_disk_serves_later_runs(tmp_path):
    write_pairs(tmp_path)
    first, later = Counting(), Counting()
    there = store(tmp_path, first, cache_folder=str(tmp_path / "kept"))([0, 5])
    assert first.encoded == 4 + 1  # one for the fingerprint
    back = store(tmp_path, later, cache_folder=str(tmp_path / "kept"))([0, 5])
    assert later.encoded == 1
    assert torch.equal(there.latents, back.latents)
    assert not list((tmp_path / "kept").rglob("*.tmp"))


def test_a_broken_file_on_disk_is_made_again(tmp_path):
    write_pairs(tmp_path)
    kept = tmp_path / "kept"
    expected = store(tmp_path, miniature(), cache_folder=str(kept))([0]).latents
    files = sorted(kept.rglob("*.safetensors"))
    files[0].write_bytes(b"half")
    again = Counting()
    assert torch.equal(store(tmp_path, again, cache_folder=str(kept))([0]).latents, expected)
    assert again.encoded == 2


def test_another_autoencoder_or_size_takes_nothing_from_disk(tmp_path):
    write_pairs(tmp_path)
    kept = str(tmp_path / "kept")
    store(tmp_path, miniature(), cache_folder=kept)([0])
    other = Counting(seed=1)
    store(tmp_path, other, cache_folder=kept)([0])
    assert other.encoded == 3
    larger, config = Counting(), PairsConfig(path=str(tmp_path / "pairs.jsonl"), cache_folder=kept)
    LatentStore(read_pictures(config), larger, config, 32)([0])
    assert larger.encoded == 3
    assert autoencoder_fingerprint(miniature(), 16) == autoencoder_fingerprint(miniature(), 16)


def test_pictures_that_cannot_be_read_are_told(tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "images" / "bright1.png").write_bytes(b"text")
    encoded = store(tmp_path, miniature())([0, 1])
    assert encoded.usable.tolist() == [True, False]
    assert encoded.latents[1].abs().max() == 0
    (problem,) = encoded.problems
    assert "pairs.jsonl:2: no picture that can be read" in problem
    with pytest.raises(AlignError, match=r"pairs\.jsonl:2"):
        refuse(encoded.problems)
    refuse(())


def test_single_pictures(tmp_path):
    config = ImagesConfig(path=str(write_pairs(tmp_path)))
    latents = LatentStore(read_pictures(config), miniature(), config, None)
    assert latents([1, 2]).latents.shape[:2] == (2, 1)
