"""Causal language models: found, loaded, saved. Importing this package loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preference.config.models import CausalLm

if TYPE_CHECKING:
    import torch

    from preference.models.language_model import LanguageModel


def load_causal_lm(config: CausalLm, device: torch.device | str = "cpu") -> LanguageModel:
    """The model that a configuration names, frozen, in evaluation mode, on `device`.

    Raises:
        ModelError: the files are missing, are of another kind, or need a package that is not installed.
    """
    from preference.models.load import load

    return load(config, device)
