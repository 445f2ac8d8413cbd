"""Text encoders and autoencoder off the accelerator while idle: which modules move, when, and how often.

There is no second device here, so the copy to the device is replaced by one that takes notes.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from diffusion.config import OdeSampler
from diffusion.generate import draw
from diffusion.models import load_model
from diffusion.models.parking import Parking
from diffusion.models.pipeline import DiffusionPipelineModel
from diffusion.rollout import SamplerSettings

from .families import FAMILIES, Family, drawn, noise
from .miniature import PROMPTS


class Device:
    """A device that notes what is fetched."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.fetched: list[Tensor] = []
        self._breaks_after = breaks_after

    def fetch(self, tensor: Tensor) -> Tensor:
        if self._breaks_after is not None and len(self.fetched) >= self._breaks_after:
            raise RuntimeError("out of memory")
        self.fetched.append(tensor)
        return tensor.clone()


def addresses(*modules: nn.Module) -> list[int]:
    return [tensor.data_ptr() for module in modules for tensor in (*module.parameters(), *module.buffers())]


def test_a_module_is_copied_for_work_and_its_originals_come_back():
    device, module, other = Device(), nn.BatchNorm1d(3), nn.Linear(2, 2)
    home, elsewhere = addresses(module), addresses(other)
    parking = Parking([module], device.fetch)
    with parking.borrowed([module, other]):
        assert not set(addresses(module)) & set(home)
        assert addresses(other) == elsewhere  # not parked here
    assert addresses(module) == home
    assert len(device.fetched) == 5  # weight, bias, running mean and variance, number of batches


def test_nothing_is_carried_back():
    """The device's copy is dropped: what was written to it is gone, which is why modules must be frozen."""
    module = nn.Linear(2, 2)
    before = module.weight.detach().clone()
    with Parking([module], Device().fetch).borrowed([module]), torch.no_grad():
        module.weight.fill_(7)
    assert torch.equal(module.weight, before)


def test_borrowed_twice_fetched_once_in_any_order_of_return():
    device, module = Device(), nn.Linear(2, 2)
    home = addresses(module)
    parking = Parking([module], device.fetch)
    first, second = parking.borrowed([module]), parking.borrowed([module])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert addresses(module) != home
    second.__exit__(None, None, None)
    assert addresses(module) == home
    assert len(device.fetched) == 2


@pytest.mark.parametrize("breaks_after", [0, 1, 3])
def test_a_fetch_that_fails_leaves_everything_at_home(breaks_after):
    modules = [nn.Linear(2, 2), nn.Linear(2, 2)]
    home = addresses(*modules)
    parking = Parking(modules, Device(breaks_after).fetch)
    with pytest.raises(RuntimeError, match="out of memory"), parking.borrowed(modules):
        pass
    assert addresses(*modules) == home
    assert all(guest.visits == 0 for guest in parking._guests.values())


def parked(family: Family) -> tuple[DiffusionPipelineModel, list[str]]:
    """A miniature whose idle parts are parked, and the notes: names of the modules that went to work, in order."""
    model, notes = family.build(), []

    class Noted(Parking):
        @contextmanager
        def _at_work(self, module):
            notes.append(next(name for name, part in model.pipeline.components.items() if part is module))
            with super()._at_work(module):
                yield

    model._parking = Noted([part for part in model._modules() if part is not model.network], Device().fetch)
    return model, notes


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_parts_work_once_for_all_prompts_and_once_for_each_batch_of_pictures(family):
    model, notes = parked(family)
    encoders = [name for name, part in model.pipeline.components.items() if part in model._text_encoders()]
    home = addresses(*(part for part in model._modules() if part is not model.network))
    model.encode(PROMPTS)
    assert notes == encoders
    model.encode(PROMPTS[:2])  # known by now
    assert notes == encoders
    images = model.decode(noise(model))
    model.encode_images(images)
    assert notes == [*encoders, "vae", "vae"]
    assert addresses(*(part for part in model._modules() if part is not model.network)) == home


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_steps_of_a_rollout_fetch_nothing_but_the_empty_prompt_once(family):
    model, notes = parked(family)
    model.encode(PROMPTS)
    notes.clear()
    drawn(model, guidance_scale=3.0)
    assert len(notes) <= len(model._text_encoders())
    notes.clear()
    drawn(model, guidance_scale=3.0)
    assert notes == []


def test_pictures_do_not_depend_on_where_parts_wait():
    family = FAMILIES[2]
    settings = SamplerSettings(sampler=OdeSampler(), num_inference_steps=2, guidance_scale=2.0, batch_size=2)
    model, _ = parked(family)
    ours = draw(model, model.network, PROMPTS, [0], settings)
    plain = family.build()
    expected = draw(plain, plain.network, PROMPTS, [0], settings)
    assert [image.tobytes() for image in ours] == [image.tobytes() for image in expected]


def test_the_models_device_is_its_networks():
    model = FAMILIES[0].build()
    model.pipeline.vae.to("meta")
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("offload", ["none", "idle"])
def test_on_the_cpu_nothing_moves(offload, tmp_path):
    family = FAMILIES[0]
    family.pipeline(0).save_pretrained(tmp_path)
    model = load_model(family.settings_of(tmp_path, offload=offload))
    assert not model._parking._guests


def test_idle_parts_are_parked_beside_another_device():
    """`meta` stands for an accelerator: the network goes there, everything else stays and is parked."""
    for family in FAMILIES:
        model = family.build()
        model.place(torch.device("meta"), "idle")
        assert model.device.type == "meta"
        others = [part for part in model._modules() if part is not model.network]
        assert set(model._parking._guests) == set(others)
        assert all(tensor.device.type == "cpu" for part in others for tensor in part.parameters())
