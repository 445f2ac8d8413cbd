"""Commands that look at rewards: `audit` before a run, `replay` after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from align.cli.app import Overrides, app, commands_of, console, is_main_process, run_folder_of

if TYPE_CHECKING:
    from align.inspect.audit.rows import ScoredRows
    from align.inspect.replay.sources import Stored

FILES = (".json", ".jsonl")
SAMPLES = 8
"""Samples of each prompt that are drawn where nobody says how many."""

Weights = Annotated[
    str | None, typer.Option("--weights", "-w", metavar="NAME=NUMBER,...", help="Weights by name; the others stay.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the page and the record.")]


@app.command()
def audit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A config (samples are drawn), a run folder or a scored file (no model is needed)."
        ),
    ],
    overrides: Overrides = None,
    samples: Annotated[
        int | None, typer.Option("--samples", "-n", min=1, help="Draw so many samples of each held-out prompt anew.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Draw for so many of the held-out prompts.")] = 64,
    again: Annotated[Path | None, typer.Option(help="The same samples scored again: the noise floor.")] = None,
    weights: Weights = None,
    output: Output = None,
) -> None:
    """Say how rewards agree, conflict, saturate, repeat themselves and count, before anybody trains on them."""
    from align.inspect.audit.command import audit_rows
    from align.inspect.audit.page import audit_page
    from align.inspect.replay.settings import parse_weights
    from align.report.tables import print_page, write_page

    given = parse_weights(weights)
    folder = output or (run_folder_of(target) or Path()) / "audit"
    rows, config = _scored(target, overrides or [], samples, prompts, folder)
    if not is_main_process():
        return
    if again is not None:
        from dataclasses import replace

        from align.inspect.audit.rows import second_scoring

        rows = replace(rows, again=second_scoring(rows, again))
    page = audit_page(audit_rows(rows, given, config))
    written = write_page(page, folder, "audit")
    print_page(page, console())
    console().print(f"\nPage: {written}", soft_wrap=True)


def _scored(
    target: str, overrides: list[str], samples: int | None, prompts: int, folder: Path
) -> tuple[ScoredRows, Any]:
    """Scored samples, and the settings that make a score of them, if any (Any: the root dataclass of a branch)."""
    from align.config.load import load_config
    from align.errors import AlignError
    from align.inspect.audit.rows import read_rows

    if Path(target).suffix in FILES:
        return read_rows(Path(target)), None
    run = run_folder_of(target)
    if run is not None and samples is None:
        return read_rows(run), load_config(target, overrides, check=False)
    config = load_config(target, overrides)
    draw = getattr(commands_of(config), "draw_scored", None)
    if draw is None:
        raise AlignError(
            f"samples of the branch `{config.branch}` cannot be drawn for an audit.",
            "Give a file of scored answers, one JSON object a line with `prompt`, `completion` and `rewards`.",
        )
    return read_rows(draw(config, samples=samples or SAMPLES, prompts=prompts, output=folder)), config


@app.command()
def replay(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A run folder, or a scored file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings to change, e.g. `pipeline.clip=null`."),
    ] = None,
    weights: Weights = None,
    combine: Annotated[
        str | None, typer.Option(help="Another combination: `soft_min`, or `{kind: soft_min, tau: 0.1}`.")
    ] = None,
    estimator: Annotated[str | None, typer.Option(help="Another estimator: `rloo`, `{kind: grpo, ...}`.")] = None,
    evaluations: Annotated[bool, typer.Option("--evaluations", help="Replay the held-out rewards instead.")] = False,
    output: Output = None,
) -> None:
    """Say what a finished run would have pushed with other weights, another combination, another estimator."""
    from align.inspect.replay.command import replay_stored
    from align.inspect.replay.settings import parse_weights
    from align.report.tables import print_page, write_page

    stored, config = _stored(target, evaluations)
    page = replay_stored(
        stored,
        config,
        weights=parse_weights(weights),
        combine=combine,
        estimator=estimator,
        overrides=overrides or (),
    )
    written = write_page(page, output or (run_folder_of(target) or Path()) / "replay", "replay")
    print_page(page, console())
    console().print(f"\nPage: {written}", soft_wrap=True)


def _stored(target: str, evaluations: bool) -> tuple[Stored, Any]:
    """Stored rewards, and the settings of their run, if there is one (Any: the root dataclass of a branch)."""
    from align.config.load import load_config
    from align.errors import AlignError
    from align.inspect.replay.sources import stored_evaluations, stored_file, stored_steps

    run = run_folder_of(target)
    if run is not None:
        config = load_config(target, check=False)
        return (stored_evaluations(run) if evaluations else stored_steps(run)), config
    if Path(target).suffix in FILES:
        return stored_file(Path(target)), None
    raise AlignError(
        f"expected a run folder or a scored file (.json, .jsonl), found `{target}`.",
        "Give the folder that `align train` printed.",
    )
