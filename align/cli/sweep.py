"""The command that maps a trade-off: `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from align.cli.app import app, command_line, console

if TYPE_CHECKING:
    from align.inspect.sweep.trials import Trial

Tries = Annotated[
    list[str] | None,
    typer.Option(
        "--try",
        "-t",
        metavar="OVERRIDES",
        help="Train CONFIG with these settings, after `SYSTEM:` or `SYSTEM/POINT:` if named; may be repeated.",
    ),
]


@app.command()
def sweep(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG | NAME=RUN,RUN...",
            help="Systems of finished runs or folders of `align evaluate`; or a config that --try varies; or both.",
        ),
    ],
    objectives: Annotated[
        str, typer.Option("--objectives", "-O", metavar="A,B,...", help="Rewards; `-A` where less is better.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page, and for runs that are trained.")],
    tries: Tries = None,
    shared: Annotated[
        str, typer.Option("--with", metavar="OVERRIDES", help="Settings that all trained runs share.")
    ] = "",
    seeds: Annotated[str | None, typer.Option(help="Train every setting with each of these seeds: 0,1,2.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="A=..,B=..", help="Point that is worse than all: default from before training."),
    ] = None,
    high: Annotated[
        str | None, typer.Option(metavar="A=..,B=..", help="Other end of the box in which fronts are measured.")
    ] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Evaluation of this step instead of each run's last.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples behind each interval.")] = 1000,
) -> None:
    """Put trained or steered models on one page: fronts with intervals, hypervolume, attainment, samples."""
    from align.inspect.replay.settings import parse_weights
    from align.inspect.sweep.command import check_first, find_trade_offs, parse_sources, write_sweep
    from align.inspect.sweep.sources import parse_objectives, read_source
    from align.report.tables import print_page

    wanted = parse_objectives(objectives)
    ends = parse_weights(reference, "reference"), parse_weights(high, "high")
    config, sources = parse_sources(targets)
    trials = _trials(config, tries or [], shared, seeds, output)
    check_first([trial.config for trial in trials], wanted, reference=ends[0], high=ends[1])
    for source in sources:
        read_source(source, wanted, step)  # says now what is wrong with it
    if trials:
        from align.inspect.sweep.trials import train_all

        train_all(trials, command_line())
    runs = [*(trial.source for trial in trials), *sources]
    found = find_trade_offs(runs, wanted, reference=ends[0], high=ends[1], step=step, resamples=resamples)
    page, written = write_sweep(found, output)
    print_page(page, console())
    console().print(f"\nPage: {written}", soft_wrap=True)


def _trials(config: str | None, tries: list[str], shared: str, seeds: str | None, output: Path) -> list[Trial]:
    """What is to be trained: every setting and seed of a config; nothing without one."""
    from align.config.load import world_size
    from align.errors import AlignError
    from align.inspect.sweep.trials import parse_seeds, planned

    if config is None:
        if tries or shared or seeds is not None:
            raise AlignError("--try, --with and --seeds vary a config, and none is given.", "Name the config first.")
        return []
    if not tries:
        raise AlignError(
            f"`{config}` is a config and nothing is tried: a sweep needs settings to compare.",
            'Give --try "rewards.0.weight=1 rewards.1.weight=0" for each setting, or NAME=RUN for finished runs.',
        )
    if world_size() > 1:
        raise AlignError(
            "a sweep trains in one process.",
            "Train with `accelerate launch -m align train` and give the finished runs as NAME=RUN,RUN.",
        )
    return planned(config, tries, parse_seeds(seeds), output, shared=shared)
