"""Runs -> the folder of a soup, which `align evaluate`, `align generate` and `align export` read as a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from align.config.load import CONFIG_NAME, load_config, save_config
from align.engine import checkpoint as files
from align.engine.adapters import adapter_identity
from align.engine.saving import find_checkpoint
from align.errors import AlignError
from align.soups import rank_of, soup_of_adapters, soup_of_weights


def make_soup(runs: Sequence[Path], shares: Sequence[float], output: Path) -> Path:
    """Average what runs added to one base model; see `align.soups`.

    Args:
        runs: run folders or checkpoints of runs from the same base model.
        shares: one per run.
        output: a folder that is not there yet; it gets the first run's config, with the rank of the soup.

    Returns:
        The folder.

    Raises:
        AlignError: runs of different models or layers, shares that make no average, a folder that is there already.
    """
    if output.exists() and any(output.iterdir()):
        raise AlignError(f"{output} is there already and not empty.", "Choose another `--output`.")
    if len(runs) != len(shares):
        raise AlignError(f"expected one share per run, found {len(shares)} for {len(runs)}.", "Repeat `RUN=SHARE`.")
    found = [files.read(find_checkpoint(run)) for run in runs]
    configs: list[Any] = [_config_of(run) for run in runs]  # Any: each branch has its own root
    _check_same(runs, found)
    states = [_weights(checkpoint) for checkpoint in found]
    try:
        lora = configs[0].model.lora
        if lora is None:
            mixed, config = soup_of_weights(states, shares), configs[0]
        else:
            scales = [one.model.lora.alpha / one.model.lora.rank for one in configs]
            mixed = soup_of_adapters(states, shares, scales)
            rank = rank_of(mixed)
            lora = replace(lora, rank=rank, alpha=float(rank))
            config = replace(configs[0], model=replace(configs[0].model, lora=lora))
    except ValueError as error:
        problem = f"these runs make no soup: {error}"
        raise AlignError(problem, "Give runs of one base model with the same layers.") from error
    step = max(1, *(checkpoint.step for checkpoint in found))
    identity = {**found[0].identity, **({} if lora is None else {"adapter": adapter_identity(lora)})}
    output.mkdir(parents=True, exist_ok=True)
    save_config(config, output / CONFIG_NAME, command=_recipe(runs, shares))
    files.write(
        output / "checkpoints", files.Checkpoint(step=step, parts={"weights": mixed}, identity=identity, metrics={})
    )
    return output


def _config_of(run: Path) -> Any:
    folder = run if (run / CONFIG_NAME).is_file() else run.parent.parent
    if not (folder / CONFIG_NAME).is_file():
        raise AlignError(f"{run} has no {CONFIG_NAME}.", "Give the run folder that `align train` printed.")
    return load_config(str(folder / CONFIG_NAME))


def _weights(checkpoint: files.Checkpoint) -> dict[str, Tensor]:
    """The averaged weights where the run has such."""
    part = "ema" if "ema" in checkpoint.parts else "weights"
    return {name: value for name, value in checkpoint.parts[part].items() if isinstance(value, Tensor)}


def _check_same(runs: Sequence[Path], found: Sequence[files.Checkpoint]) -> None:
    for run, checkpoint in zip(runs[1:], found[1:], strict=True):
        other, first = dict(checkpoint.identity), dict(found[0].identity)
        differs = [name for name in first if name != "adapter" and other.get(name) != first[name]]
        if differs:
            raise AlignError(
                f"{runs[0]} and {run} are not runs of one base model: they differ in {', '.join(differs)}.",
                "Train both from the same weights.",
            )


def _recipe(runs: Sequence[Path], shares: Sequence[float]) -> str:
    return "align soup " + " ".join(f"{run}={share:g}" for run, share in zip(runs, shares, strict=True))
