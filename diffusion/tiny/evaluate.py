"""How good the embedded model is: strict success per class of prompts, over fixed prompts and seeds.

    python -m diffusion.tiny.evaluate
    python -m diffusion.tiny.evaluate --guidance-scale 3 --markdown docs/results/embedded_model.md

Each class is judged on the same number of (prompt, seed) pairs; prompts are spread evenly over the class's captions and
repeat with other seeds where the class is small. Intervals are Wilson's 95 %.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion.tiny import model_path, reward, world

if TYPE_CHECKING:
    from diffusers import StableDiffusion3Pipeline
    from PIL import Image

NORMAL_975 = 1.959964


@dataclass(frozen=True)
class Row:
    """Result of one class: `strict` successes of `count`, their 95 % interval, and the mean share of constraints."""

    kind: str
    count: int
    strict: float
    low: float
    high: float
    score: float


def wilson(successes: float, count: int, z: float = NORMAL_975) -> tuple[float, float]:
    """Wilson's interval of a proportion p = successes / count.

        (p + z^2/2n  -+  z sqrt(p (1-p) / n + z^2 / 4n^2)) / (1 + z^2/n)

    Unlike p -+ z s it stays inside [0, 1] and is not empty at p = 0 or 1.

    Raises:
        ValueError: `count` is not positive.

    References:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if count <= 0:
        raise ValueError(f"expected at least one trial, found {count}")
    p = successes / count
    middle = p + z**2 / (2 * count)
    half = z * sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def spread(kind: str, count: int) -> list[str]:
    """`count` captions of a class, evenly spread over all of them; a class smaller than `count` repeats."""
    every = world.captions(kind)
    if count >= len(every):
        return [every[k % len(every)] for k in range(count)]
    return [every[k * len(every) // count] for k in range(count)]


def load(folder: Path) -> "StableDiffusion3Pipeline":
    """The pipeline of a folder, quiet. diffusers wants to be told that T5 is absent, although the folder says so."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: "StableDiffusion3Pipeline",
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    max_sequence_length: int = 0,
    batch_size: int = 64,
) -> "list[Image.Image]":
    """One picture per prompt, from the stock pipeline call; the noise of a picture depends on its own seed only."""
    import torch

    images = []
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        images += pipeline(
            prompt=list(prompts[rows]),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[rows]],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            max_sequence_length=max_sequence_length,
        ).images
    return images


def summarise(kind: str, images: "Sequence[Image.Image]", prompts: Sequence[str]) -> Row:
    """Judge the pictures of one class."""
    verdicts = [verdict for verdict in reward.verdicts(images, prompts) if verdict is not None]
    successes = sum(verdict.strict for verdict in verdicts)
    low, high = wilson(successes, len(verdicts))
    mean = sum(verdict.score for verdict in verdicts) / len(verdicts)
    return Row(kind, len(verdicts), successes / len(verdicts), low, high, mean)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, percentages."""
    lines = ["| class | example | pictures | strict success | 95 % interval | constraints satisfied |", "|---|---|--:|--:|--:|--:|"]
    for row in rows:
        example = world.captions(row.kind)[-1] if row.kind in world.CLASSES else ""
        interval = f"{100 * row.low:.1f} – {100 * row.high:.1f}"
        lines.append(
            f"| {row.kind} | {example} | {row.count} | {100 * row.strict:.1f} % | {interval} | {100 * row.score:.1f} % |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, draw, judge, print."""
    parser = argparse.ArgumentParser(description="Strict success of a pipeline in the drawn world, per class of prompts.")
    parser.add_argument("--model", type=Path, default=model_path(), help="folder of a pipeline")
    parser.add_argument("--per-class", type=int, default=64, help="pictures per class")
    parser.add_argument("--num-inference-steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="1 = no guidance")
    parser.add_argument("--max-sequence-length", type=int, default=0, help="zero tokens in place of T5; the stock default is 256")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture of each class")
    parser.add_argument("--grid", type=Path, help="also write the first pictures of each class as a PNG")
    options = parser.parse_args(arguments)

    pipeline = load(options.model)
    rows, strips = [], []
    for kind in world.CLASSES:
        prompts = spread(kind, options.per_class)
        images = draw(
            pipeline,
            prompts,
            range(options.seed, options.seed + len(prompts)),
            num_inference_steps=options.num_inference_steps,
            guidance_scale=options.guidance_scale,
            max_sequence_length=options.max_sequence_length,
        )
        rows.append(summarise(kind, images, prompts))
        strips.append(images[:: max(1, len(images) // 16)][:16])
    print(table(rows))
    if options.grid:
        save_grid(strips, options.grid)


def save_grid(strips: "Sequence[Sequence[Image.Image]]", path: Path) -> None:
    """One row of pictures per class."""
    from PIL import Image

    side = world.SIDE
    sheet = Image.new("RGB", (side * max(map(len, strips)), side * len(strips)))
    for row, strip in enumerate(strips):
        for column, image in enumerate(strip):
            sheet.paste(image, (side * column, side * row))
    sheet.save(path)


if __name__ == "__main__":
    main()
