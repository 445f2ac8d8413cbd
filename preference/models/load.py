"""From files to a network and its tokenizer: safetensors or GGUF, quantised or not, with an adapter merged in."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from preference.config.models import CausalLm
from preference.models.language_model import LanguageModel
from preference.models.locate import ModelError, Source, locate
from preference.models.quiet import quiet


def load(config: CausalLm, device: torch.device | str = "cpu") -> LanguageModel:
    """The model that a configuration names, frozen, in evaluation mode, on `device`.

    Raises:
        ModelError: the files are missing, are of another kind, or need a package that is not installed.
    """
    source = locate(config.path)
    _check_packages(config, source)
    tokenizer = load_tokenizer(config)
    with quiet(), _explained(config.path):
        network: Any = _gguf(source, config) if source.gguf else _safetensors(source, config, device)
    if config.adapter is not None:
        network = _merge(network, Path(config.adapter).expanduser())
    if config.quantization is None:
        network = network.to(device)
    network.requires_grad_(False).eval()
    _check_vocabulary(network, tokenizer, config.path)
    return LanguageModel(
        network=network, tokenizer=tokenizer, source=config.path, base=source.name, merged=config.adapter is not None
    )


def load_tokenizer(config: CausalLm) -> Any:  # Any: transformers' tokenizers have no common type here
    """The tokenizer of a model, with the configuration's chat template if it names one."""
    from transformers import AutoTokenizer

    source = locate(config.path)
    with quiet(), _explained(config.path):
        tokenizer = AutoTokenizer.from_pretrained(source.name, trust_remote_code=False, **_where(source, config))
    if config.chat_template is not None:
        tokenizer.chat_template = Path(config.chat_template).read_text(encoding="utf-8")
    return tokenizer


def _where(source: Source, config: CausalLm) -> dict[str, Any]:
    """Arguments of `from_pretrained` that say where files are."""
    found: dict[str, Any] = {"local_files_only": True} if source.is_local else {}
    if source.gguf:
        found["gguf_file"] = source.gguf
    if config.revision is not None and not source.is_local:
        found["revision"] = config.revision
    return found


def _safetensors(source: Source, config: CausalLm, device: torch.device | str) -> nn.Module:
    from transformers import AutoModelForCausalLM

    quantised = {} if config.quantization is None else _quantised(config, device)
    return AutoModelForCausalLM.from_pretrained(
        source.name,
        dtype=getattr(torch, config.dtype),
        attn_implementation=config.attention,
        use_safetensors=True,
        trust_remote_code=False,
        **quantised,
        **_where(source, config),
    )


def _quantised(config: CausalLm, device: torch.device | str) -> dict[str, Any]:
    """QLoRA's number format (Dettmers et al., arXiv:2305.14314), or LLM.int8()."""
    from transformers import BitsAndBytesConfig

    settings = {
        "4bit": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": getattr(torch, config.dtype),
        },
        "8bit": {"load_in_8bit": True},
    }
    return {
        "quantization_config": BitsAndBytesConfig(**settings[str(config.quantization)]),
        "device_map": {"": str(device)},
    }


def _gguf(source: Source, config: CausalLm) -> nn.Module:
    """A GGUF model with plain weights.

    transformers widens the weights but leaves the mark of a quantised model on it, which then refuses to be trained
    and is saved with a setting that nothing can read. So the network is made anew from configuration and weights.
    """
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, config.dtype)
    read = AutoModelForCausalLM.from_pretrained(source.name, dtype=dtype, **_where(source, config))
    settings: Any = read.config  # Any: the mark is no attribute of the class
    if hasattr(settings, "quantization_config"):
        del settings.quantization_config
    network = AutoModelForCausalLM.from_config(settings, dtype=dtype, attn_implementation=config.attention)
    network.load_state_dict(read.state_dict())
    if read.generation_config is not None:
        network.generation_config = read.generation_config
    network.tie_weights()
    return network


def _merge(network: Any, folder: Path) -> nn.Module:
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file() or not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"model.adapter {str(folder)!r}: expected a folder with adapter_config.json and adapter_model.safetensors.",
            way_out="Give the folder that `align train` or peft's save_pretrained wrote.",
        )
    try:
        with quiet():
            return PeftModel.from_pretrained(network, str(folder)).merge_and_unload()  # pyright: ignore[reportCallIssue]
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"model.adapter {str(folder)!r} does not fit the model: {str(error)[:300]}",
            way_out="Name the adapter's own base model in `model.path`.",
        ) from error


def _check_packages(config: CausalLm, source: Source) -> None:
    needed = {"gguf": source.gguf is not None, "bitsandbytes": config.quantization is not None}
    extras = {"gguf": "gguf", "bitsandbytes": "bnb"}
    for package in (name for name, wanted in needed.items() if wanted):
        if importlib.util.find_spec(package) is None:
            raise ModelError(
                f"model.path {config.path!r} needs the package {package}, which is not installed.",
                way_out=f"pip install 'align-suite[{extras[package]}]'",
            )


def _check_vocabulary(network: Any, tokenizer: Any, path: str) -> None:
    """A tokenizer whose ids the model does not have."""
    known = network.get_input_embeddings().num_embeddings
    beyond = {token for token, number in tokenizer.get_vocab().items() if number >= known}
    if beyond - _CONVERTED:
        raise ModelError(
            f"model.path {path!r}: the tokenizer has {len(tokenizer)} tokens, the model embeds {known}.",
            way_out="Give a model and a tokenizer that belong together.",
        )


_CONVERTED = {"<|endoftext|>"}
"""Put behind the vocabulary by transformers' reader of GGUF files that lack it; no other text is encoded by it."""


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """What transformers says about files that it cannot use, as a mistake that can be repaired."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError) as error:
        text = " ".join(str(error).split())
        custom = "trust_remote_code" in text
        raise ModelError(
            f"model.path {path!r} cannot be loaded: {type(error).__name__}: {text[:300]}",
            way_out="Models that bring their own code are not run here; use one that transformers knows."
            if custom
            else "Check the files, the attention implementation, and that transformers knows this model type.",
        ) from error
