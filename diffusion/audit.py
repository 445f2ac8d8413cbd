"""Held-out pictures of the base model, each scored twice: what `align audit` looks at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from align.inspect.audit.rows import picture_features
from align.inspect.audit.twice import is_cached, scored_twice
from align.types import Samples
from diffusion.evaluate import SEEDS, classes_of, spread_over_classes
from diffusion.models.base import DiffusionModel
from diffusion.prompts import PromptSet
from diffusion.rollout import SamplerSettings, roll_out

if TYPE_CHECKING:
    from align.rewards.scorer import Scorer

__all__ = ["is_cached", "scored_pictures", "write_rows"]


def scored_pictures(
    model: DiffusionModel,
    network: nn.Module,
    heldout: PromptSet,
    scorer: Scorer,
    settings: SamplerSettings,
    timer: Callable,
    *,
    samples: int,
    prompts: int,
) -> Iterator[tuple[dict[str, Any], Any]]:
    """One row of JSON and the picture (a PIL image, hence `Any`) for each sample, batch by batch.

    The noise is that of the held-out evaluation: seed 0, 1, ... of each prompt.

    Args:
        model: the model family.
        network: its denoiser, with the weights to draw with.
        heldout: all held-out prompts.
        scorer: runs the rewards.
        settings: of `evaluation_sampler`.
        timer: `timer(stage)` is a context manager.
        samples: of each prompt.
        prompts: how many prompts, classes taken in turn.
    """
    chosen = spread_over_classes(heldout)[:prompts]
    prompt_row = torch.tensor(chosen).repeat_interleave(samples)
    seeds = torch.arange(samples).repeat(len(chosen))
    rows = heldout.select(prompt_row.tolist())
    classes = classes_of(rows)
    distinct, conditioning_row = prompt_row.unique(return_inverse=True)
    conditioning = model.encode(heldout.select(distinct.tolist()).prompts)
    index = prompt_row * SEEDS + seeds
    everything = Samples(index=index, group_ids=prompt_row, prompts=rows.prompts, columns=rows.columns)
    for drawn in roll_out(model, network, conditioning, conditioning_row, index, settings, timer, "evaluation"):
        batch = replace(everything.select(drawn.rows.tolist()), images=drawn.images)
        scores = scored_twice(scorer, batch)
        features = picture_features(drawn.images)
        for place, row in enumerate(drawn.rows.tolist()):
            yield (
                {
                    "prompt": rows.prompts[row],
                    "class": classes[row],
                    "seed": int(seeds[row]),
                    **scores[place],
                    "features": {name: values[place] for name, values in features.items()},
                },
                drawn.images[place],
            )


def write_rows(found: Iterator[tuple[dict[str, Any], Any]], folder: Path, cached: Sequence[str] = ()) -> Path:
    """`samples.jsonl` and `pictures/NNN.png` in a folder.

    Args:
        found: of `scored_pictures`.
        folder: is made.
        cached: rewards whose second scoring is no scoring; it is left out.

    Returns:
        The file of rows.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    path = folder / "samples.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, (row, image) in enumerate(found):
            name = f"{number:03d}.png"
            image.save(pictures / name)
            again = {key: None if key in cached else value for key, value in row["rewards_again"].items()}
            line = {**row, "image": f"pictures/{name}", "rewards_again": again}
            file.write(json.dumps(line, allow_nan=False) + "\n")
    return path
