"""Score pictures that are there already: a folder and a prompt file, any rewards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from align.config.shared import RewardConfig
from align.errors import AlignError
from align.rewards.scorer import Scorer
from align.statistics import Interval, bootstrap_mean_interval
from align.types import Samples
from diffusion.evaluate import known
from diffusion.prompts import PromptSet

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CONTACT_SHEET = "grid.png"
"""Where `align generate` puts all its pictures in one; it is no picture of a prompt."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the rewards say about pictures.

    Attributes:
        images: file of each picture.
        prompts: its prompt.
        rewards: its scores by name, None where unscored.
        problems: per reward, why pictures are unscored: message -> count.
    """

    images: Sequence[Path]
    prompts: Sequence[str]
    rewards: Sequence[dict[str, float | None]]
    problems: dict[str, dict[str, int]]

    @property
    def names(self) -> tuple[str, ...]:
        """The rewards."""
        return tuple(self.rewards[0])

    def mean(self, name: str) -> Interval | None:
        """Mean of a reward and its 95 % interval; None where nothing was scored."""
        scored = [
            (row[name], prompt) for row, prompt in zip(self.rewards, self.prompts, strict=True) if row[name] is not None
        ]
        if not scored:
            return None
        values, prompts = zip(*scored, strict=True)
        return bootstrap_mean_interval(values, clusters=prompts)

    def write(self, path: Path) -> Path:
        """One JSON object a picture."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for image, prompt, rewards in zip(self.images, self.prompts, self.rewards, strict=True):
                file.write(
                    json.dumps({"image": str(image), "prompt": prompt, "rewards": rewards}, allow_nan=False) + "\n"
                )
        return path


def image_files(folder: Path) -> list[Path]:
    """The pictures of a folder, in order of name, without a contact sheet.

    Raises:
        AlignError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise AlignError(
            f"expected a folder of pictures at {folder}, found none.", "Give the folder that holds the pictures."
        )
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name != CONTACT_SHEET)
    if not paths:
        raise AlignError(f"there is no picture in {folder}.", f"Pictures are files ending in {', '.join(ENDINGS)}.")
    return paths


def find_images(folder: Path, prompts: PromptSet) -> list[Path]:
    """The picture of each prompt row: the one that its column `image` names, or the files of the folder by name.

    Raises:
        AlignError: no folder, no picture, a named picture that is missing, or other numbers of pictures and prompts.
    """
    named = prompts.columns.get("image")
    if named is not None:
        paths = [folder / str(name) for name in named]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise AlignError(
                f"{len(missing)} of {len(paths)} pictures that the column `image` names are not in {folder}, "
                f"such as {missing[0].name}.",
                "Give the folder that these names are relative to.",
            )
        return paths
    paths = image_files(folder)
    if len(paths) != len(prompts):
        raise AlignError(
            f"expected one picture for each of the {len(prompts)} prompts, found {len(paths)} in {folder}.",
            "Pictures are matched with prompts by file name; or name each prompt's picture in a column `image`.",
        )
    return paths


def score_images(images: Sequence[Path], prompts: PromptSet, rewards: Sequence[RewardConfig]) -> Scores:
    """Score each picture with each reward.

    Args:
        images: one file per prompt row.
        prompts: the rows; their columns reach the rewards.
        rewards: any.

    Raises:
        AlignError: a reward that cannot be found or used, or a file that is no picture.
    """
    scorer = Scorer(rewards)
    scorer.check({"prompts", "images", *prompts.columns})
    scorer.check_rows({**prompts.columns, "prompts": prompts.prompts})
    samples = Samples(
        index=torch.arange(len(prompts)),
        group_ids=torch.arange(len(prompts)),
        prompts=prompts.prompts,
        columns=prompts.columns,
        images=[_open(path) for path in images],
    )
    table = scorer.score(samples)
    rows = [
        {name: known(value) for name, value in zip(table.names, values, strict=True)}
        for values in table.values.tolist()
    ]
    problems = {name: dict(counts) for name, counts in table.problems.items()}
    return Scores(images=images, prompts=prompts.prompts, rewards=rows, problems=problems)


def _open(path: Path):
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise AlignError(f"{path} is no picture that can be read ({error}).", "Remove or replace it.") from error
