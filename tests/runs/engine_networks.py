"""Miniatures of every kind of network that is trained, with random weights, and a call for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from align.config.shared import LoraConfig
from align.engine.adapters import Policy


@dataclass(frozen=True)
class Kind:
    """How to make a network, what to adapt in it, how to call it."""

    make: Callable[[], nn.Module]
    targets: tuple[str, ...]
    call: Callable[[nn.Module, torch.dtype], Tensor]

    def policy(self, adapter: str) -> Policy:
        """All weights ("full"), or disturbed adapters on a network in float32 ("lora") or bfloat16 ("half")."""
        torch.manual_seed(0)
        module = self.make().eval()
        if adapter == "full":
            return Policy.full(module)
        if adapter == "half":
            module = module.bfloat16()
        made = Policy.lora(module, LoraConfig(rank=2, alpha=4.0), self.targets, seed=0)
        for name, weight in made.trainable_parameters().items():
            if ".lora_B." in name:
                weight.data.copy_(torch.linspace(-0.1, 0.1, weight.numel()).view_as(weight))
        return made

    def run(self, module: nn.Module, adapter: str) -> Tensor:
        """One pass on fixed inputs."""
        return self.call(module, torch.bfloat16 if adapter == "half" else torch.float32).float()


def _line(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, int(torch.tensor(shape).prod())).reshape(shape)


def _sd3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=8, pooled_projection_dim=6, out_channels=4, pos_embed_max_size=4,
    )  # fmt: skip


def _call_sd3(module: nn.Module, dtype: torch.dtype) -> Tensor:
    return module(
        hidden_states=_line(1, 4, 4, 4).to(dtype),
        encoder_hidden_states=_line(1, 3, 8).to(dtype),
        pooled_projections=torch.ones(1, 6, dtype=dtype),
        timestep=torch.tensor([500.0]),
        return_dict=False,
    )[0]


def _flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=6, guidance_embeds=True, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip


def _call_flux(module: nn.Module, dtype: torch.dtype) -> Tensor:
    return module(
        hidden_states=_line(2, 4, 4).to(dtype),
        encoder_hidden_states=_line(2, 3, 8).to(dtype),
        pooled_projections=torch.ones(2, 6, dtype=dtype),
        timestep=torch.tensor([0.5, 0.2]),
        guidance=torch.ones(2),
        img_ids=torch.zeros(4, 3),
        txt_ids=torch.zeros(3, 3),
        return_dict=False,
    )[0]


def _unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def _call_unet(module: nn.Module, dtype: torch.dtype) -> Tensor:
    times = torch.tensor([500.0, 20.0])
    return module(_line(2, 4, 8, 8).to(dtype), times, _line(2, 3, 8).to(dtype), return_dict=False)[0]


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, attention_dropout=0.5,
        )
    )  # fmt: skip


def _qwen() -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, tie_word_embeddings=True,
        )
    )  # fmt: skip


def _call_text(module: nn.Module, dtype: torch.dtype) -> Tensor:
    return module(input_ids=torch.arange(6).reshape(1, 6), use_cache=False).logits


KINDS = {
    "sd3": Kind(_sd3, ("to_q", "add_k_proj", "to_out.0"), _call_sd3),
    "flux": Kind(_flux, ("to_q", "add_k_proj"), _call_flux),
    "unet": Kind(_unet, ("to_q", "to_v", "conv1"), _call_unet),
    "llama": Kind(_llama, ("q_proj", "v_proj"), _call_text),
    "qwen": Kind(_qwen, ("q_proj", "v_proj"), _call_text),
}
