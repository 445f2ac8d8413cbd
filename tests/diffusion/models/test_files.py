"""Sizes from a model folder's settings: known before anything is loaded, and the same as the loaded model's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffusion.checks import contradictions
from diffusion.config import DiffusionRun, RolloutConfig
from diffusion.models.files import ModelFiles, halved_by, latent_unit, misfit
from diffusion.models.locate import ModelError
from diffusion.models.targets import NETWORKS

from .families import FAMILIES


def test_misfit_by_hand():
    """Multiples of 64: 500 is nearest to 512, 10 is less than the smallest."""
    assert misfit(512, 64) is None
    message, way_out = misfit(500, 64)
    assert message == "rollout.resolution is 500; this model draws multiples of 64 pixels."
    assert way_out == "The nearest possible resolution is 512."
    assert misfit(10, 64)[1].endswith("is 64.")
    assert halved_by((320, 640, 1280, 1280)) == 8


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_sizes_without_loading_are_those_of_the_loaded_model(family, tmp_path):
    model = family.build()
    model.pipeline.save_pretrained(tmp_path)
    settings = family.settings_of(tmp_path)
    files = ModelFiles.read(tmp_path, NETWORKS[settings.kind].part)
    unit = files.factor() * latent_unit(settings, files)
    assert files.factor() == model.pipeline.vae_scale_factor
    assert files.side(None) == model.latent_shape()[-1]
    assert files.side(4 * unit) == model.latent_shape(4 * unit)[-1]
    with pytest.raises(ModelError) as error:
        model.latent_shape(4 * unit + 1)
    run = DiffusionRun(model=settings, rollout=RolloutConfig(resolution=4 * unit + 1))
    found = [problem for problem in contradictions(run) if "rollout.resolution" in problem.keys]
    assert [(problem.message, problem.way_out) for problem in found] == [(error.value.message, error.value.way_out)]
    fitting = replace(run, rollout=RolloutConfig(resolution=4 * unit))
    assert not any("rollout.resolution" in problem.keys for problem in contradictions(fitting))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_tables_name_what_the_classes_do(family, tmp_path):
    network = NETWORKS[family.settings_of(tmp_path).kind]
    assert (network.part, network.targets) == (family.model.part, family.model.targets)


def test_a_hub_id_is_checked_when_it_is_loaded():
    settings = FAMILIES[0].settings_of("owner/name")
    run = DiffusionRun(model=settings, rollout=RolloutConfig(resolution=511))
    assert not any("rollout.resolution" in problem.keys for problem in contradictions(run))
