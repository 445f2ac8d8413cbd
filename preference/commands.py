"""What `align train | evaluate` do for language models: wire the parts, in order. No formula.

`audit`, `generate`, `score`, `pairs` and `export` have files of their own.

The command line imports this module late: it loads torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align.cli.head import show_plan, write_head
from align.config.lengths import with_steps
from align.config.load import CONFIG_NAME, save_config
from align.engine.checkpoint import make_readable
from align.engine.command import check_resumable, evaluation_folder, made, open_folder, processes_of
from align.engine.folder import step_number
from align.engine.loop import train as train_loop
from align.engine.run import Run
from align.engine.saving import find_checkpoint, load_weights
from align.engine.settings import RunSettings
from align.engine.timers import Timers
from align.errors import AlignError
from align.heldout import HeldoutRows, write_record
from align.report.build import write_report
from preference.assemble import (
    Workshop,
    keeps_copy,
    layout_of,
    make_hooks,
    read_inputs,
    record_path,
)
from preference.audit import draw_scored
from preference.config import PreferenceRun
from preference.export import export
from preference.forward import SequenceScorer
from preference.generate import generate
from preference.make_pairs import pairs
from preference.models import load_causal_lm
from preference.plan import plan
from preference.score import score
from preference.taught_records import training_records

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from preference.models.language_model import LanguageModel

__all__ = ["draw_scored", "evaluate", "export", "generate", "pairs", "score", "teach", "train"]

OUTPUT = Path("candidates.jsonl")
"""Where `align generate` writes without `--output`."""
WEIGHTS = "weights"
"""Folder of a finished run that holds its weights as transformers and peft read them."""
REFERENCE = "reference"
"""Folder of a run that keeps what the reference said, unless `reference.cache` names another."""


def train(config: PreferenceRun, *, name: str = "run", resume: Path | None = None, command: str = "") -> Path:
    """Train, or go on with a run.

    Args:
        config: the run's settings, already checked.
        name: of the run folder where `output.name` is not set; a number is appended.
        resume: run folder to go on with.
        command: what was typed, for the comment in the saved config.

    Returns:
        The run folder, with its report.
    """
    with processes_of(config.training) as (accelerator, processes):
        inputs = read_inputs(config)
        config = with_steps(config, len(inputs.pairs), config.data.pairs_per_step)
        records = training_records(config, inputs.pairs)
        planned = plan(config, processes.world)
        show_plan(planned, processes, inputs.reports())
        folder = open_folder(config.output, name, resume, processes)
        try:
            model = load_causal_lm(config.model, accelerator.device)
            copy = keeps_copy(config, len(inputs.pairs))
            policy = model.policy(config.model.lora, seed=config.seed, keep_reference=copy)
            layout = layout_of(config, policy, inputs)
            run = Run(accelerator, folder, policy, RunSettings.of(config))
            check_resumable(folder, policy)
            write_head(config, folder.path, planned, processes, command=command, layout=layout.reason)
            parts = Workshop(
                config=config,
                model=model,
                inputs=inputs,
                policy=policy,
                scorer=SequenceScorer(policy, layout, pad_id=model.pad_id),
                processes=processes,
                timer=run.timer,
                cache=_cache(config, folder.path),
                records=records,
            )
            run.hooks = make_hooks(config, parts.evaluator(), run)
            outcome = train_loop(run, parts.method())
            _finish(run, model, finished=outcome.step == config.training.steps)
            processes.barrier()
        finally:
            folder.close()
    return folder.path


def evaluate(config: PreferenceRun, *, checkpoint: Path | None = None, output: Path | None = None) -> Path:
    """Evaluate the base model and, if there is one, a checkpoint: the same pairs, prompts and seeds, paired.

    Args:
        config: the settings; `evaluation` and `data.heldout` say what is scored and answered.
        checkpoint: checkpoint or run folder; None evaluates the base alone.
        output: folder for the records; None takes `evaluation/` in the run folder, or in the working directory.

    Returns:
        The folder; it has the layout of a run folder.
    """
    with processes_of(config.training) as (accelerator, processes):
        inputs = read_inputs(config)
        source = None if checkpoint is None else find_checkpoint(checkpoint)
        output = output or evaluation_folder(source)
        model = load_causal_lm(config.model, accelerator.device)
        policy = model.policy(config.model.lora, seed=config.seed)
        layout = layout_of(config, policy, inputs)
        policy.prepare(accelerator)
        evaluator = Workshop(
            config=config,
            model=model,
            inputs=inputs,
            policy=policy,
            scorer=SequenceScorer(policy, layout, pad_id=model.pad_id),
            processes=processes,
            timer=Timers.for_device(accelerator.device).stage,
            cache=None if config.reference.cache is None else Path(config.reference.cache).expanduser(),
        ).evaluator()
        if evaluator is None:
            raise AlignError(
                "there are neither held-out pairs nor prompts to answer, so there is nothing to evaluate.",
                "Set `data.heldout` to a file of pairs, or `evaluation.generate`.",
            )
        policy.gather()  # processes score different numbers of pairs
        found = [evaluator.evaluate(0, policy.module, "raw")]
        if source is not None:
            weights = load_weights(source, policy)
            found.append(evaluator.evaluate(max(step_number(source.name) or 1, 1), policy.module, weights))
        if processes.is_main:
            save_config(config, made(output) / CONFIG_NAME)
            for evaluation in found:
                write_record(record_path(output, evaluation.step), evaluation)
            write_report(output)
            _print(output, found)
    return output


def teach(config: PreferenceRun) -> Path:
    """Compute the teacher records that the run will learn from; see `preference.teach`.

    Returns:
        Their folder.
    """
    from align.cli.app import is_main_process
    from preference.teach import teach as compute

    def say(line: str) -> None:
        if is_main_process():
            _console().print(line, soft_wrap=True, markup=False, highlight=False)

    return compute(config, say)


def _cache(config: PreferenceRun, folder: Path) -> Path:
    given = config.reference.cache
    return folder / REFERENCE if given is None else Path(given).expanduser()


def _finish(run: Run, model: LanguageModel, *, finished: bool) -> None:
    """The weights as transformers reads them, and the report. All processes take part: weights may be spread."""
    main = run.processes.is_main
    if finished:
        with run.averaged_weights(), run.policy.assembled(keep=main):
            if main:
                model.save(run.folder.path / WEIGHTS, run.policy)
    if main:
        if finished:
            make_readable(run.folder.path / WEIGHTS, like=run.folder.path / CONFIG_NAME)
        write_report(run.folder.path)


def _print(output: Path, found: list[HeldoutRows]) -> None:
    from align.report.terminal import print_report

    if len(found) > 1:
        print_report(output, _console())
    else:
        _console().print(_base_table(found[0]))


def _base_table(base: HeldoutRows) -> Table:
    """Mean and 95 % interval of each reward."""
    from rich.table import Table

    table = Table("reward", "rows", "mean", "95 % interval", box=None, pad_edge=False)
    for name in base.names:
        mean = base.mean(name)
        if mean is not None:
            table.add_row(name, str(mean.n), f"{mean.mean:.3f}", f"{mean.low:.3f} to {mean.high:.3f}")
    return table


def _console() -> Console:
    from align.cli.app import console

    return console()
