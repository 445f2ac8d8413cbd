"""Commands that look without running: `plan`, `configs`, `schema`, `report`. The first three never import torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from align.cli.app import Overrides, app, console

configs_app = typer.Typer(help="List, show and copy the configurations that come with the suite.", no_args_is_help=True)
app.add_typer(configs_app, name="configs")


@app.command()
def plan(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A config file, a run folder, or the name of a shipped config.")
    ],
    overrides: Overrides = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many processes will run it; default: WORLD_SIZE, or 1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print what a run is going to do, without running it: samples, batches, network evaluations, memory."""
    from align.config.branches import branch_module
    from align.config.load import load_config, world_size
    from align.inspect.plan import print_plan

    loaded = load_config(config, overrides or (), processes=processes)
    made = branch_module(type(loaded), "plan").plan(loaded, processes or world_size())
    if as_json:
        typer.echo(json.dumps(made.to_json(), indent=2, ensure_ascii=False))
    else:
        print_plan(made, console())


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.")]) -> None:
    """Write the page of a run (`report.html`) and print its summary."""
    from align.errors import AlignError
    from align.report.build import write_report
    from align.report.terminal import print_report

    try:
        page = write_report(run)
    except FileNotFoundError as error:
        raise AlignError(
            f"`{run}` is not a run folder: {error}", "Give the folder that `align train` printed."
        ) from error
    print_report(run, console())
    console().print(f"Report: {page}", soft_wrap=True)


@app.command()
def schema(
    branch: Annotated[str, typer.Argument(help="Which branch.")] = "diffusion",
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="A reference page for people instead of JSON schema.")
    ] = False,
) -> None:
    """Print every setting with its type, default and meaning."""
    from align.config import schema as schemas
    from align.config.branches import branches, root_of
    from align.errors import AlignError

    known = list(branches())
    if branch not in known:
        raise AlignError(f"expected one of the branches {', '.join(known)}, found {branch}.", "Name one.")
    root = root_of(branch)
    typer.echo(schemas.markdown(root) if as_markdown else json.dumps(schemas.json_schema(root), indent=2))


@configs_app.command("ls")
def list_configs() -> None:
    """List the shipped configurations."""
    from align.config import shipped

    names = [*shipped.names(), *shipped.launcher_names()]
    width = max(len(name) for name in names)
    for name in names:
        typer.echo(f"{name:<{width}}  {shipped.summary(shipped.get(name))}")


@configs_app.command("show")
def show_config(name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `align configs ls`.")]) -> None:
    """Print a shipped configuration."""
    from align.config import shipped

    typer.echo(shipped.get(name).read_text(encoding="utf-8"), nl=False)


@configs_app.command("copy")
def copy_config(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `align configs ls`.")],
    destination: Annotated[Path | None, typer.Argument(metavar="DEST", help="A file or folder; default: here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Copy a shipped configuration, to be edited."""
    from align.config import shipped

    target = shipped.copy(name, destination, force=force)
    typer.echo(f"wrote {target}; look at it with `align plan {target}`, run it with `align train {target}`.")
