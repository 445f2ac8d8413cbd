"""The embedded text-to-image model: a real `StableDiffusion3Pipeline` folder that draws coloured shapes.

* `world`: captions <-> scenes, and the painter that draws a scene.
* `reader`: pixels -> objects (colour, shape, place, size).
* `reward`: the checkable reward, the share of a caption's constraints that a picture satisfies.
* `build`, `train`: how the weights in `model/` were made.
* `evaluate`: how good they are, per class of prompts.

    >>> from diffusers import DiffusionPipeline
    >>> from diffusion.tiny import model_path
    >>> pipe = DiffusionPipeline.from_pretrained(model_path())  # doctest: +SKIP

There is no T5 in it but a silent one, because diffusers refuses to load such a folder without (`build.silent_t5`).

This module imports nothing heavy.
"""

from pathlib import Path


def model_path() -> Path:
    """Folder of the embedded pipeline, for `DiffusionPipeline.from_pretrained`."""
    return Path(__file__).resolve().parent / "model"


def prompts_path(split: str) -> Path:
    """File of prompts, one JSON object `{"prompt": ..., "class": ...}` a line.

    Args:
        split: `"train"` or `"heldout"`; no caption is in both.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f"expected split 'train' or 'heldout', found {split!r}")
    return Path(__file__).resolve().parent / "prompts" / f"{split}.jsonl"
