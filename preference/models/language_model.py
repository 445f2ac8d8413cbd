"""A causal language model with its tokenizer: what a run asks of it beside its passes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from preference.models.locate import ModelError
from preference.models.targets import endings

if TYPE_CHECKING:
    from align.config.shared import LoraConfig
    from align.engine.adapters import Policy


@dataclass(kw_only=True)
class LanguageModel:
    """A network and its tokenizer, from files or from memory.

    Attributes:
        network: a causal language model of transformers.
        tokenizer: its tokenizer (Any: transformers' tokenizers have no common type here).
        source: what the configuration calls it.
        base: folder or hub id, for the adapter's own books.
        merged: whether an adapter was merged in, so that a new one alone would not give the model back.
    """

    network: nn.Module
    tokenizer: Any
    source: str = "memory"
    base: str | None = None
    merged: bool = False

    @property
    def config(self) -> Any:
        """Settings of the network (Any: transformers has one class per family)."""
        config: Any = self.network.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding, which may be more than the tokenizer has tokens."""
        return int(self.config.vocab_size)

    @property
    def pad_id(self) -> int:
        """A token to fill up rows with. Nothing is masked by comparing with it, so the end token will do."""
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(int(token) for token in candidates if token is not None)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: those of the generation settings, and the tokenizer's EOS."""
        settings: Any = getattr(self.network, "generation_config", None)
        given = getattr(settings, "eos_token_id", None)
        ids = [given] if isinstance(given, int) else list(given or ())
        eos = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys(int(token) for token in (*ids, *([] if eos is None else [eos]))))

    def linear_layers(self) -> list[str]:
        """Names of the layers that can carry an adapter, but for the output layer."""
        from transformers.pytorch_utils import Conv1D

        network: Any = self.network
        output = network.get_output_embeddings()
        layers = network.named_modules()
        return [name for name, layer in layers if isinstance(layer, nn.Linear | Conv1D) and layer is not output]

    def lora_targets(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """Endings of layer names for a named set, or the given ones.

        Raises:
            ModelError: the family has no layers of that set.
        """
        found = endings(names, self.linear_layers())
        if not found:
            have = endings("all_linear", self.linear_layers())
            raise ModelError(
                f"model.lora.targets {names!r} names no layers of {type(self.network).__name__}.",
                way_out=f"Choose from these endings: {', '.join(have)}.",
            )
        return found

    def policy(self, lora: LoraConfig | None, *, seed: int, keep_reference: bool = False) -> Policy:
        """The trainable network: adapters, or all weights. Changes `network` in place.

        Args:
            lora: rank and targets; None trains all weights.
            seed: of the adapters' start.
            keep_reference: with all weights trained, keep a copy of them for `Policy.reference`.
        """
        from align.engine.adapters import Policy

        identity = {"model": str(self.config.model_type), "weights": self.fingerprint()}
        if lora is None:
            return Policy.full(self.network, keep_reference=keep_reference, identity=identity)
        return Policy.lora(self.network, lora, self.lora_targets(lora.targets), seed=seed, identity=identity)

    @torch.no_grad()
    def fingerprint(self) -> str:
        """Hash of every weight but those of adapters: equal before and after adapters are put on."""
        digest = hashlib.blake2b(type(self.network).__name__.encode(), digest_size=16)
        weights = {name.replace(".base_layer", ""): weight for name, weight in self.network.named_parameters()}
        for name in sorted(name for name in weights if ".lora_" not in name):
            weight = weights[name]
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(_bytes(weight))
        return digest.hexdigest()

    def save(self, folder: Path, policy: Policy) -> Path:
        """Write the trained weights and the tokenizer as transformers and peft read them; see `models.save`."""
        from preference.models.save import save

        return save(self, folder, policy)


def _bytes(weight: Tensor) -> bytes:
    return weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
