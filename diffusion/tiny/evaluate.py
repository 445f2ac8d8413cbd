"""How good the embedded model is: strict success per class of prompts, over fixed prompts and seeds.

    python -m diffusion.tiny.evaluate
    python -m diffusion.tiny.evaluate --guidance-scale 3 --markdown docs/results/embedded_model.md

Each class is judged on the same number of (prompt, seed) pairs; prompts are spread evenly over the class's captions and
repeat with other seeds where the class is small. Intervals are Wilson's 95 %.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from align.statistics import Interval, wilson_interval
from diffusion.tiny import model_path, reward, world

if TYPE_CHECKING:
    from diffusers import StableDiffusion3Pipeline
    from diffusers.pipelines.stable_diffusion_3.pipeline_output import StableDiffusion3PipelineOutput
    from PIL import Image

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Row:
    """Result of one class: share of strict successes with its 95 % interval, and the mean share of constraints."""

    kind: str
    strict: Interval
    score: float


def spread(kind: str, count: int) -> list[str]:
    """`count` captions of a class, evenly spread over all of them; a class smaller than `count` repeats."""
    every = world.captions(kind)
    if count >= len(every):
        return [every[k % len(every)] for k in range(count)]
    return [every[k * len(every) // count] for k in range(count)]


def load(folder: Path) -> "StableDiffusion3Pipeline":
    """The pipeline of a folder, quiet, and without its T5, which says nothing (`build.silent_t5`)."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipeline.set_progress_bar_config(disable=True)
    return cast("StableDiffusion3Pipeline", pipeline)  # the folder names the class


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
        drawn = pipeline(
            prompt=list(prompts[rows]),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[rows]],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            max_sequence_length=max_sequence_length,
        )
        images += cast("StableDiffusion3PipelineOutput", drawn).images  # a tuple only with return_dict=False
    return images


def summarise(kind: str, images: "Sequence[Image.Image]", prompts: Sequence[str]) -> Row:
    """Judge the pictures of one class."""
    verdicts = [verdict for verdict in reward.verdicts(images, prompts) if verdict is not None]
    successes = sum(verdict.strict == 1.0 for verdict in verdicts)
    mean = sum(verdict.score for verdict in verdicts) / len(verdicts)
    return Row(kind, wilson_interval(successes, len(verdicts)), mean)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, percentages; the last line is over all classes, each with equal weight in pictures."""
    pictures = sum(row.strict.n for row in rows)
    successes = sum(round(row.strict.mean * row.strict.n) for row in rows)
    score = sum(row.score * row.strict.n for row in rows) / pictures
    head = "| class | example | pictures | strict success | 95 % interval | constraints satisfied |"
    lines = [head, "|---|---|--:|--:|--:|--:|"]
    for row in [*rows, Row("all", wilson_interval(successes, pictures), score)]:
        example = world.captions(row.kind)[-1] if row.kind in world.CLASSES else ""
        interval = f"{100 * row.strict.low:.1f} – {100 * row.strict.high:.1f}"
        shares = f"{100 * row.strict.mean:.1f} % | {interval} | {100 * row.score:.1f} %"
        lines.append(f"| {row.kind} | {example} | {row.strict.n} | {shares} |")
    return "\n".join(lines)


def insert(text: str, measured: str) -> str:
    """Replace what stands between the two markers of a page.

    Raises:
        ValueError: a marker is missing.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"expected a page with the lines {BEGIN} and {END}; add both where the table belongs")
    return text[: text.index(BEGIN) + len(BEGIN)] + f"\n{measured}\n" + text[text.index(END) :]


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, draw, judge, print."""
    parser = argparse.ArgumentParser(description="Strict success of a pipeline in the drawn world, per class.")
    parser.add_argument("--model", type=Path, default=model_path(), help="folder of a pipeline")
    parser.add_argument("--per-class", type=int, default=64, help="pictures per class")
    parser.add_argument("--num-inference-steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="1 = no guidance")
    parser.add_argument("--max-sequence-length", type=int, default=0, help="zero tokens for T5; stock default 256")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture of each class")
    parser.add_argument("--markdown", type=Path, help="also write command and table between the markers of this page")
    parser.add_argument("--grid", type=Path, help="also write the first pictures of each class as a PNG")
    options = parser.parse_args(arguments)

    rows, strips = measure(load(options.model), options)
    print(table(rows))
    if options.grid:
        save_grid(strips, options.grid)
    if options.markdown:
        command = shlex.join(["python", "-m", "diffusion.tiny.evaluate", *(arguments or sys.argv[1:])])
        page = options.markdown.read_text(encoding="utf-8")
        options.markdown.write_text(insert(page, f"`{command}`\n\n{table(rows)}"), encoding="utf-8")


def measure(
    pipeline: "StableDiffusion3Pipeline", options: argparse.Namespace
) -> "tuple[list[Row], list[list[Image.Image]]]":
    """Draw and judge every class; the rows of the table, and some pictures of each."""
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
    return rows, strips


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
