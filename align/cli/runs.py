"""Commands that run a model: `demo`, `train`, `evaluate`, `generate`, `score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from align.cli.app import Overrides, app, command_line, commands_of, console, is_main_process, run_folder_of

DEMOS = {"diffusion": ("demo/awm_tiny", "demo"), "preference": ("demo/dpo_tiny", "demo_texts")}
"""Shipped config and name of the run folder of each branch's demo."""


@app.command()
def demo(
    overrides: Overrides = None,
    branch: Annotated[str, typer.Option(help="`diffusion` (pictures), `preference` (texts), or `all`.")] = "all",
    seed: Annotated[int | None, typer.Option(help="All randomness of the run follows from it.")] = None,
) -> None:
    """Train the embedded models on this machine, one of pictures and one of texts, and show that they got better."""
    from align.config.load import load_config
    from align.errors import AlignError

    if branch not in (*DEMOS, "all"):
        raise AlignError(
            f"expected a branch among {', '.join(DEMOS)}, or all; found {branch!r}.", "Leave it out for all."
        )
    chosen = DEMOS.values() if branch == "all" else [DEMOS[branch]]
    first = [] if seed is None else [f"seed={seed}"]
    loaded = [(load_config(config, [*first, *(overrides or ())]), name) for config, name in chosen]
    for config, name in loaded:
        _train(config, name=name)


@app.command()
def train(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="A config file, the name of a shipped config, or a run folder (which is resumed)."
        ),
    ],
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run folder that `output.name` names, if it is there.")
    ] = False,
) -> None:
    """Train a model, or go on with a run that was stopped."""
    from align.config.load import load_config

    loaded = load_config(config, overrides or ())
    folder = run_folder_of(config)
    if folder is None and resume:
        folder = _named_run(loaded.output.directory, loaded.output.name)
    _train(loaded, name=Path(config).stem, resume=folder)


def _named_run(directory: str, name: str | None) -> Path | None:
    """The run folder of a config with a name, if it has been made."""
    from align.errors import AlignError

    if name is None:
        raise AlignError(
            "`--resume` with a config needs to know which run: `output.name` is not set.",
            "Give the run folder instead (`align train runs/NAME`), or set `output.name`.",
        )
    return run_folder_of(str(Path(directory) / name))


def _train(config: Any, *, name: str, resume: Path | None = None) -> None:
    """Train, then show the summary and where the page is (`Any`: the root dataclass of any branch)."""
    from align.report.terminal import print_report

    folder = commands_of(config).train(config, name=name, resume=resume, command=command_line())
    if is_main_process():
        console().print()
        print_report(folder, console())
        console().print(f"Report: {folder / 'report.html'}", soft_wrap=True)


@app.command()
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A checkpoint, a run folder (its last checkpoint), or a config (the base)."
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the results.")] = None,
) -> None:
    """Answer the held-out prompts with fixed seeds, in pictures or texts, and score them."""
    from align.config.load import load_config

    loaded = load_config(target, overrides or ())
    written = commands_of(loaded).evaluate(loaded, checkpoint=_checkpoint(target), output=output)
    if is_main_process():
        console().print(f"Written: {written}", soft_wrap=True)


@app.command()
def generate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A checkpoint, a run folder (its last checkpoint), or a config (the base)."
        ),
    ],
    overrides: Overrides = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="A prompt; may be repeated.")] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="A file of prompts, as in `prompts.heldout`.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples per prompt, from the seeds 0, 1, ...; default: 4, or `candidates.per_prompt`."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for pictures (`pictures`), file for texts (`candidates.jsonl`)."),
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(
            help="Of a run of DPA, also on pictures: what to prefer, such as `relevance=0.8,brevity=0.6`. Of "
            "texts also `auto`: for each prompt the weights of --adapter."
        ),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="A preference adapter of the same objectives, for `--direction auto`.")
    ] = None,
    neighbours: Annotated[
        int,
        typer.Option(min=1, help="Of a run of DPA on texts: answer under so many directions near it, keep the best."),
    ] = 1,
) -> None:
    """Draw pictures, or sample several answers to each prompt, with a trained or base model."""
    from align.config.load import load_config

    loaded = load_config(target, overrides or (), check=False)
    commands = commands_of(loaded)
    output = output or commands.OUTPUT
    commands.generate(
        loaded,
        checkpoint=_checkpoint(target),
        prompts=tuple(prompt or ()),
        prompts_file=prompts,
        seeds=None if seeds is None else tuple(range(seeds)),
        output=output,
        **_direction(loaded, direction),
        **_steering(loaded, adapter, neighbours),
    )
    if is_main_process():
        console().print(f"Written: {output}", soft_wrap=True)


def _direction(config: Any, direction: str | None) -> dict[str, str | None]:  # Any: each branch has its own root
    """The direction as an argument, for the branch that knows directions."""
    from align.errors import AlignError

    if config.branch == "dpa" or getattr(config, "directions", None) is not None:
        return {"direction": direction}
    if direction is not None:
        raise AlignError(
            "this run was not trained to follow directions.",
            "Give a run of `branch: dpa`, or one of pictures with `directions`; or leave `--direction` out.",
        )
    return {}


def _steering(config: Any, adapter: Path | None, neighbours: int) -> dict[str, Any]:  # Any: see `_direction`
    """What only DPA on texts knows, as arguments."""
    from align.errors import AlignError

    if config.branch == "dpa":
        return {"adapter": adapter, "neighbours": neighbours}
    if adapter is not None or neighbours > 1:
        option = "--neighbours" if adapter is None else "--adapter"
        raise AlignError(f"`{option}` is for runs of `branch: dpa`, found `{config.branch}`.", "Leave it out.")
    return {}


@app.command()
def export(
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="A checkpoint or a run folder (its last checkpoint).")
    ],
    overrides: Overrides = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="Image models: `diffusers` (the default), `comfyui`, `kohya` (adapters), `merged` (pipeline). "
            "Language models: `merged` (the default; a folder of transformers), `adapter` (peft).",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="An empty or new folder.")] = Path("exported"),
    dtype: Annotated[str, typer.Option(help="`float32`, `bfloat16` or `float16`.")] = "float32",
    averaged: Annotated[
        bool, typer.Option("--averaged/--raw", help="The moving average of the weights, or the last weights.")
    ] = True,
) -> None:
    """Write trained weights for another program."""
    from align.config.load import load_config

    loaded = load_config(str(target), overrides or (), check=False)
    written = commands_of(loaded).export(
        loaded, source=target, format=format, output=output, dtype=dtype, averaged=averaged
    )
    console().print(f"Written: {written}", soft_wrap=True)


@app.command()
def score(
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES",
            help="A folder of pictures, taken in the order of their names, or a file of candidates (`align generate`).",
        ),
    ],
    overrides: Overrides = None,
    reward: Annotated[
        list[str] | None, typer.Option("--reward", "-r", help="A reward as in a config; may be repeated.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="Texts: the config whose `candidates` has rewards and weights.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="A file with one prompt per picture.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file for the scores.")] = None,
    branch: Annotated[
        str | None, typer.Option(help="Whose samples these are; default: a folder is of images, a file of texts.")
    ] = None,
) -> None:
    """Score a folder of pictures or a file of texts with any rewards, without the model that made them."""
    from align.config.branches import branch_module, root_of
    from align.config.load import load_config

    commands = branch_module(root_of(branch or ("preference" if samples.is_file() else "diffusion")), "commands")
    loaded = None if config is None else load_config(config, overrides or (), check=False)
    given = {} if loaded is None else {"config": loaded}
    commands.score(samples, rewards=tuple(reward or ()), prompts=prompts, output=output, **given)


def _checkpoint(target: str) -> Path | None:
    """The folder that holds trained weights: `target` if it is a checkpoint or a run folder; None for a config."""
    path = Path(target).expanduser()
    return path if path.is_dir() else None
