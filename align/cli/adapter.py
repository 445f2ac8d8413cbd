"""The command that asks a preference adapter: `adapter`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from align.cli.app import app, console


@app.command()
def adapter(
    target: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="A folder with adapter.json, or the run folder that trained it.")
    ],
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="A prompt; may be repeated.")] = None,
    device: Annotated[str, typer.Option(help="Where the encoder computes.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per prompt.")] = False,
) -> None:
    """Print the weights that a trained preference adapter gives to prompts; without prompts, what it has learnt."""
    from align.adapter.record import read_record

    record = read_record(target)
    if not prompt:
        if as_json:
            typer.echo(record.to_json(), nl=False)
            return
        console().print(
            f"objectives: {', '.join(record.objectives)}\nencoder: {record.encoder_name}", markup=False, soft_wrap=True
        )
        for sentence in record.report.get("sentences", ()):
            console().print(sentence, markup=False, highlight=False, soft_wrap=True)
        return
    from align.adapter.use import PromptWeigher

    weights = PromptWeigher.load(target, device=device).weights_for(prompt).tolist()
    if as_json:
        for text, row in zip(prompt, weights, strict=True):
            named = dict(zip(record.objectives, row, strict=True))
            typer.echo(json.dumps({"prompt": text, "weights": named}, ensure_ascii=False))
    else:
        _print_table(record.objectives, prompt, weights)


def _print_table(objectives: tuple[str, ...], prompts: list[str], weights: list[list[float]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in objectives:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("prompt")
    for text, row in zip(prompts, weights, strict=True):
        table.add_row(*(f"{value:.3f}" for value in row), Text(text))
    console().print(table)
