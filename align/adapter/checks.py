"""Contradictions in the settings of an adapter's run, found before anything heavy is imported. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from align.adapter.config import AdapterRun
from align.adapter.rows import PreferredRows, read_rows
from align.config import checks as shared
from align.config.errors import Problem
from align.config.lengths import refuse_epochs
from align.encoders.config import TransformersEncoder
from align.errors import AlignError


def contradictions(config: AdapterRun, processes: int = 1) -> Iterator[Problem]:
    """Every contradiction of a run.

    Args:
        config: its settings.
        processes: how many processes it will run on.
    """
    return chain(
        shared.check_recipe(config.recipe),
        _check_objectives(config),
        _check_encoder(config),
        _check_data(config, processes),
        _check_training(config),
        shared.check_optimizer(config.optimizer, config.training),
        refuse_epochs(config.training, "an adapter stops by itself when held-out rows gain no more"),
        shared.check_output(config.output),
    )


def _check_objectives(config: AdapterRun) -> Iterator[Problem]:
    names = config.objectives
    if len(names) < 2 or len(set(names)) < len(names):
        yield Problem(
            keys=("objectives",),
            message=f"`objectives` expects two or more different rewards, found {', '.join(names) or 'none'}.",
            way_out="Name the columns of the file, for example `objectives: [helpfulness, harmlessness]`.",
        )


def _check_encoder(config: AdapterRun) -> Iterator[Problem]:
    """A model folder that is none; a hub id and a package are found or missed when the encoder is loaded."""
    if isinstance(config.encoder, TransformersEncoder):
        folder = Path(config.encoder.path).expanduser()
        if folder.is_absolute() and not (folder / "config.json").is_file():
            message = f"`encoder.path` expects a folder with a config.json at {folder}, found none."
            yield Problem(keys=("encoder.path",), message=message, way_out="Give a model folder or a hub id.")


def _check_data(config: AdapterRun, processes: int) -> Iterator[Problem]:
    if len(config.objectives) < 2:
        return
    train = _read("data.train", config.data.train, config)
    heldout = None if config.data.heldout is None else _read("data.heldout", config.data.heldout, config)
    yield from (found for found in (train, heldout) if isinstance(found, Problem))
    if isinstance(train, Problem):
        return
    yield from _check_constants(config, train)
    yield from shared.check_updates(min(config.data.prompts_per_step, len(train)), config.training, processes)
    distinct = len(set(train.prompts))
    if config.data.heldout is None and config.data.heldout_share > 0 and distinct < 2:
        yield Problem(
            keys=("data.train", "data.heldout_share"),
            message=f"{config.data.train} has {distinct} prompt, so none can be set aside.",
            way_out="Add prompts, name a file in `data.heldout`, or set `data.heldout_share: 0`.",
        )


def _check_constants(config: AdapterRun, train: PreferredRows) -> Iterator[Problem]:
    """An objective with one and the same reward in all rows gets a weight that no prompt has any part in."""
    for name, column in zip(config.objectives, zip(*train.preferred, strict=True), strict=True):
        scored = [value for value in column if not math.isnan(value)]
        if len(scored) > 1 and len(set(scored)) == 1:
            yield Problem(
                keys=("objectives", "data.train"),
                message=f"`{name}` is {scored[0]:g} in all {len(scored)} rows of {config.data.train} that have it, so "
                "no prompt can say how much it counts.",
                way_out="Remove it from `objectives`, or give rows in which it differs.",
            )


def _read(key: str, source: str, config: AdapterRun) -> PreferredRows | Problem:
    try:
        return read_rows(source, config.objectives, rejected=config.target.contrastive)
    except AlignError as error:
        return Problem(keys=(key, "objectives"), message=f"`{key}`: {error.message}", way_out=error.way_out)


def _check_training(config: AdapterRun) -> Iterator[Problem]:
    """Settings of large networks."""
    for name in ("gradient_checkpointing", "compile"):
        if getattr(config.training, name):
            key = f"training.{name}"
            message = f"`{key}` is on; an adapter of two layers has nothing to gain from it."
            yield Problem(keys=(key,), message=message, way_out="Leave it out.")
