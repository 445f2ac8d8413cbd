"""Round trips: exported weights, read as each program reads them, draw the picture that the run's own weights draw.

The programs themselves are not installed here. Their rule, W + alpha / rank * up @ down with rank from the file's own
shapes and alpha from the file, is applied by a few lines of this test that share nothing with the exporter.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.random import keyed_normal
from align.errors import AlignError
from diffusion.export.files import FORMATS

from ..models.families import FAMILIES, adapted, disturb, probe
from ..models.miniature import PROMPTS, miniature

FLOAT32 = torch.float32
RANK, ALPHA = 4, 10.0  # alpha is neither rank nor twice the rank


def trained() -> tuple:
    """A model with an adapter that has moved."""
    model = miniature()
    policy = Policy.lora(model.network, LoraConfig(rank=RANK, alpha=ALPHA), model.lora_targets("all_linear"), seed=0)
    with torch.no_grad():
        for number, weight in enumerate(policy.trainable_parameters().values()):
            weight.add_(0.1 * keyed_normal(tuple(weight.shape), torch.tensor([number]), "moved")[0])
    return model, policy


def velocity(model, network=None) -> torch.Tensor:
    x = keyed_normal(model.latent_shape(), torch.arange(4), "probe")
    with torch.no_grad():
        return model.predict(network or model.network, x, torch.tensor([0.2, 0.5, 0.8, 1.0]), model.encode(PROMPTS))


def with_added(tensors: dict, name_of) -> torch.Tensor:
    """Velocity of a fresh base whose weights got what the file says."""
    base = miniature()
    used = set()
    with torch.no_grad():
        for name, layer in base.network.named_modules():
            down, up, alpha = (tensors.get(key) for key in name_of(name))
            if down is not None:
                layer.weight += float(alpha) / down.shape[0] * up @ down
                used.update(name_of(name))
    assert used == set(tensors)
    return velocity(base)


def comfyui(name: str) -> tuple[str, str, str]:
    return tuple(f"transformer.{name}.{end}" for end in ("lora_A.weight", "lora_B.weight", "alpha"))


def test_comfyui_round_trip(tmp_path):
    model, policy = trained()
    path = FORMATS["comfyui"](model, policy, tmp_path, FLOAT32)
    tensors = load_file(path)
    assert_close(with_added(tensors, comfyui), velocity(model), rtol=1e-5, atol=1e-5)
    without_alpha = {name: torch.tensor(float(RANK)) if name.endswith(".alpha") else t for name, t in tensors.items()}
    assert (with_added(without_alpha, comfyui) - velocity(model)).abs().max() > 1e-3  # the alpha matters


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_merged_pipeline_round_trip(family, tmp_path):
    """Every family: the merged network, read by diffusers, computes what base and adapter did."""
    model = family.build()
    policy = adapted(model, "all_linear")
    disturb(policy, 0.05)
    x, t, conditioning = probe(model)
    with torch.no_grad():
        expected = model.predict(model.network, x, t, conditioning)
        base = family.build()
        assert (base.predict(base.network, x, t, conditioning) - expected).abs().max() > 1e-3
        FORMATS["merged"](model, policy, tmp_path / "merged", FLOAT32)
        assert not [name for name, _ in model.network.named_parameters() if "lora" in name]
        loaded = type(model.network).from_pretrained(tmp_path / "merged" / model.part)
        assert_close(model.predict(loaded, x, t, conditioning), expected, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "merged" / "model_index.json").is_file()


def test_half_precision_keeps_alpha_exact(tmp_path):
    model, policy = trained()
    tensors = load_file(FORMATS["comfyui"](model, policy, tmp_path, torch.bfloat16))
    assert {t.dtype for name, t in tensors.items() if not name.endswith(".alpha")} == {torch.bfloat16}
    assert all(float(t) == ALPHA for name, t in tensors.items() if name.endswith(".alpha"))


def test_what_cannot_be_exported(tmp_path):
    model, policy = trained()
    with pytest.raises(AlignError, match="StableDiffusion3Pipeline"):
        FORMATS["kohya"](model, policy, tmp_path, FLOAT32)
    full = miniature()
    with pytest.raises(AlignError, match="no adapter to export"):
        FORMATS["comfyui"](full, Policy.full(full.network), tmp_path, FLOAT32)
