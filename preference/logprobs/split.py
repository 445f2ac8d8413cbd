"""A language model in two: the trunk that makes hidden states, and the head. Checked by numbers, not by class names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.errors import AlignError
from preference.logprobs.head import Head, LinearHead, ModuleHead

_SCALES: dict[str, Callable[[float], float]] = {
    "logit_scale": lambda value: value,  # Cohere
    "logits_scaling": lambda value: 1 / value,  # Granite
    "output_multiplier": lambda value: value,
    "lm_head_multiplier": lambda value: value,  # Falcon-H1
}
"""Settings of model configurations that multiply the logits, and the factor that they mean."""

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of the logits of the two ways, as a share of the largest logit: rounding, not another formula."""


@dataclass(frozen=True, kw_only=True)
class SplitModel:
    """Trunk and head of a causal language model.

    Attributes:
        trunk: module whose call gives `last_hidden_state`. It holds the adapters that the model holds.
        head: what makes logits of it.
    """

    trunk: nn.Module
    head: Head

    def hidden_states(self, inputs: dict[str, Any]) -> Float[Tensor, "b t d"]:  # Any: masks may be dicts or block masks
        """Hidden states of a batch; `inputs` as `model_inputs` of `preference.layout` makes them."""
        return self.trunk(**inputs).last_hidden_state


def split_model(model: nn.Module, *, float32_product: bool = False) -> SplitModel:
    """Trunk and head of a transformers model, with or without PEFT adapters.

    The head is a `LinearHead` if it is nothing but a matrix, else a `ModuleHead`: adapters on it, quantised or sharded
    weights, hooks. One forward pass of four tokens proves that the two give the model's own logits.

    Args:
        model: causal language model.
        float32_product: see `LinearHead`.

    Raises:
        AlignError: the two do not give the model's logits (an output layer that we do not know, or an adapter that
            adds tokens of its own).
    """
    split = parts_of(model, float32_product=float32_product)
    _check(model, split)
    return split


def parts_of(model: nn.Module, *, float32_product: bool = False) -> SplitModel:
    """The same without the proof: for each pass of a model that has been split before.

    Under FSDP2 the weights of a pass are other tensors than those between passes, so a head is taken when it is used.

    Raises:
        AlignError: there is no trunk or no output layer.
    """
    causal: Any = model  # Any: what transformers adds to a module is asked for by name
    causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
    prefix = str(getattr(causal, "base_model_prefix", ""))
    trunk = getattr(causal, prefix, None) or getattr(causal, "model", None)
    output = causal.get_output_embeddings() if hasattr(causal, "get_output_embeddings") else None
    if not isinstance(trunk, nn.Module) or not isinstance(output, nn.Module):
        raise AlignError(
            f"expected a causal language model with a trunk and an output layer, found {type(causal).__name__}.",
            "Load it with AutoModelForCausalLM, or compute its logits whole with preference.logprobs.token_log_probs.",
        )
    scale, softcap = _finish_of(causal)
    return SplitModel(trunk=trunk, head=_head_of(output, scale, softcap, float32_product))


def _finish_of(model: nn.Module) -> tuple[float, float | None]:
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    scale = 1.0
    for name, factor in _SCALES.items():
        value = getattr(config, name, None)
        if isinstance(value, int | float):
            scale *= factor(value)
    return scale, getattr(config, "final_logit_softcapping", None)


def _head_of(output: nn.Module, scale: float, softcap: float | None, float32_product: bool) -> Head:
    bare = type(output) is nn.Linear and not output._forward_hooks and not output._forward_pre_hooks
    # A shard (DTensor) or a quantised weight is a Tensor of another class.
    weight, bias = getattr(output, "weight", None), getattr(output, "bias", None)
    if bare and type(weight) is nn.Parameter and type(weight.data) is Tensor:
        return LinearHead(weight=weight, bias=bias, scale=scale, softcap=softcap, float32_product=float32_product)
    return ModuleHead(module=output, scale=scale, softcap=softcap)


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Without dropout inside; every module has its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def _check(model: nn.Module, split: SplitModel) -> None:
    embedding = next(iter(split.trunk.parameters()))
    vocabulary = split.head.weight.shape[0] if isinstance(split.head, LinearHead) else 8
    ids = (torch.arange(4, device=embedding.device) * 7 + 1) % min(vocabulary, 1000)
    with in_evaluation(model):
        whole = model(input_ids=ids[None], use_cache=False).logits[0]
        hidden = split.hidden_states({"input_ids": ids[None], "use_cache": False})[0]
        ours = split.head.logits(hidden)
    same = ours.shape == whole.shape
    gap = float((ours - whole).abs().max() / whole.abs().max().clamp(min=1e-6)) if same else float("inf")
    if not gap <= _TOLERANCE.get(whole.dtype, 5e-2):
        found = f"differ by {gap:.1e} of the largest logit" if same else f"have shapes {ours.shape} and {whole.shape}"
        raise AlignError(
            f"the output layer of {type(model).__name__} is not the plain layer that its parts suggest: its own logits "
            f"and those of trunk and head {found}.",
            "Its log-probabilities cannot be made in chunks: use the model's own logits with "
            "preference.logprobs.token_log_probs.",
        )
