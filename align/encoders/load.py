"""Settings of an encoder -> the encoder."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from align.encoders.config import ImageModelEncoder, MiniLmEncoder, TransformersEncoder

if TYPE_CHECKING:
    from align.encoders.base import TextEncoder


@singledispatch
def load_encoder(config: Any, device: str = "cpu") -> TextEncoder:
    """The encoder that settings name, frozen, on `device` (Any: the members of `align.encoders.config.Encoder`).

    Raises:
        AlignError: a package or files are missing, or cannot be used.
    """
    raise TypeError(f"expected the settings of an encoder, found {type(config).__name__}")


@load_encoder.register(MiniLmEncoder)
def _(config: MiniLmEncoder, device: str = "cpu") -> TextEncoder:
    from align.encoders.minilm import load_minilm

    return load_minilm(device)


@load_encoder.register(TransformersEncoder)
def _(config: TransformersEncoder, device: str = "cpu") -> TextEncoder:
    from align.encoders.network import load_network

    return load_network(
        config.path,
        name=config.path,
        pooling=config.pooling,
        max_tokens=config.max_tokens,
        revision=config.revision,
        device=device,
    )


@load_encoder.register(ImageModelEncoder)
def _(config: ImageModelEncoder, device: str = "cpu") -> TextEncoder:
    """Its branch knows the model families; it is found by its announcement, as by the commands."""
    from align.config.branches import branch_module
    from align.config.load import load_config
    from align.errors import AlignError

    loaded = load_config(config.config, check=False)
    try:
        module = branch_module(type(loaded), "prompt_encoder")
    except ModuleNotFoundError as error:
        raise AlignError(
            f"the config {config.config!r} is of branch `{loaded.branch}`, whose models have no encoder of their own.",
            "Name a config of a text-to-image model, or another `encoder.kind`.",
        ) from error
    return module.load_prompt_encoder(loaded.model, device)
