"""Fit linear heads to ratings of pictures, by ridge regression on CLIP's embeddings.

python -m align.rewards.fit_clip_head rated.csv --model CLIP --attribute NAME:LOWEST:HIGHEST:LEVELS --output FOLDER

`rated.csv` has a column `image` (paths beside the file) and one for each attribute; an empty cell is no rating.
Pictures with the same text in a column `group` stay on one side when the penalty is chosen.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from align.engine.random import generator
from align.errors import AlignError
from align.rewards.clip import OPENAI_L14, lazy_clip
from align.rewards.clip_head import HeadCard, write_head
from align.rewards.network import batches
from align.rewards.ridge import RidgeHead, fit_ridge, laid_aside
from align.rewards.scales import LabelScale

OPENED = 256
"""Pictures that are open at once."""


def parse_attribute(text: str) -> tuple[str, LabelScale]:
    """`beauty:1:10:10` -> name and scale.

    Raises:
        AlignError: another form, or a scale that is none.
    """
    name, *numbers = text.split(":")
    try:
        lowest, highest, levels = numbers
        scale = LabelScale(lowest=float(lowest), highest=float(highest), levels=int(levels))
    except ValueError:
        raise AlignError(
            f"--attribute expects NAME:LOWEST:HIGHEST:LEVELS, found {text!r}.", "Write for example `beauty:1:10:10`."
        ) from None
    problem = scale.problem()
    if problem is not None:
        raise AlignError(f"--attribute {text!r}: {problem}.", "Write for example `beauty:1:10:10`.")
    return name, scale


def read_rated(
    path: Path, scales: Mapping[str, LabelScale]
) -> tuple[list[Path], Float[Tensor, "n k"], Int[Tensor, "n"]]:
    """Pictures, labels in training units (NaN where a cell is empty), and group ids.

    Raises:
        AlignError: a missing column or picture, a cell that is no rating, a rating off its scale.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    for name in ("image", *scales):
        if name not in columns:
            raise AlignError(f"{path} has no column `{name}`.", f"Its columns are {', '.join(columns) or 'none'}.")
    images = [path.parent / row["image"] for row in rows]
    for line, image in enumerate(images, 2):
        if not image.is_file():
            raise AlignError(f"{path}:{line}: expected a picture {image}, found none.", "Correct the path.")
    labels = [
        [_label(row[name], scale, f"{path}:{line}: {name}") for name, scale in scales.items()]
        for line, row in enumerate(rows, 2)
    ]
    numbers: dict[str, int] = {}
    keys = [row.get("group") or f"row {line}" for line, row in enumerate(rows, 2)]
    ids = torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys], dtype=torch.int64)
    return images, torch.tensor(labels, dtype=torch.float64).reshape(len(rows), len(scales)), ids


def _label(text: str, scale: LabelScale, place: str) -> float:
    if not text.strip():
        return math.nan
    try:
        label = float(text)
    except ValueError:
        raise AlignError(f"{place} must be a number, found {text!r:.40}.", "Correct it, or leave it empty.") from None
    if not scale.holds(label):
        raise AlignError(
            f"{place} is {label:g}, but its scale goes from {scale.lowest:g} to {scale.highest:g}.",
            "Correct the rating or the scale.",
        )
    return scale.to_unit(label)


def fit(path: Path, model: str, scales: Mapping[str, LabelScale], output: Path, *, device: str = "auto") -> RidgeHead:
    """Embed the pictures, fit, write the folder.

    Args:
        path: the CSV file.
        model: folder or hub id of a CLIP of transformers.
        scales: attributes and their scales.
        output: folder of the head.
        device: where the CLIP runs.

    Raises:
        AlignError: the file, or ratings that cannot be fitted.
    """
    images, labels, ids = read_rated(path, scales)
    clip = lazy_clip(model, model, device, "float32", 32)()
    parts = []
    for rows in batches(len(images), OPENED):
        opened = [Image.open(image).convert("RGB") for image in images[rows]]
        parts.append(clip.embed_images(opened))
    try:
        aside = laid_aside(ids, 0.2, generator("clip_head"))
        head = fit_ridge(torch.cat(parts), labels, heldout=aside, intercept=True)
    except ValueError as error:
        raise AlignError(f"{path} cannot be fitted: {error}.", "Give more rated pictures.") from error
    write_head(output, HeadCard(model=model, scales=scales), head.weight, head.bias)
    return head


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("--model", default=OPENAI_L14)
    parser.add_argument("--attribute", action="append", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    try:
        scales = dict(parse_attribute(text) for text in given.attribute)
        head = fit(given.ratings, given.model, scales, given.output, device=given.device)
    except AlignError as error:
        print(error, file=sys.stderr)
        return 2
    for name, scale, alpha, error in zip(scales, scales.values(), head.alphas, head.heldout_errors, strict=True):
        label_error = error**0.5 * scale.step * scale.levels
        print(f"{name}: error {label_error:.3f} on the ratings laid aside (root mean square), penalty {alpha:g}")
    print(f"Written: {given.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
