"""What `align train | evaluate` do for DPA: wire the parts, in order. No formula."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from align.cli.head import show_plan, write_head
from align.config.load import CONFIG_NAME, save_config
from align.engine.checkpoint import make_readable
from align.engine.command import check_resumable, evaluation_folder, made, open_folder, processes_of
from align.engine.folder import step_number
from align.engine.hooks import Hooks
from align.engine.loop import train as train_loop
from align.engine.run import Run
from align.engine.saving import find_checkpoint, load_weights
from align.engine.settings import RunSettings
from align.engine.timers import Timers
from align.errors import AlignError
from align.heldout import write_record
from align.report.build import write_report
from preference.assemble import record_path
from preference.dpa.assemble import Inputs, Workshop, layout_of, read_inputs
from preference.dpa.config import DpaRun
from preference.dpa.deploy import write_control
from preference.dpa.plan import plan
from preference.forward import SequenceScorer
from preference.models import load_causal_lm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from preference.dpa.steering import SteeringEvaluator
    from preference.models.language_model import LanguageModel

__all__ = ["draw_scored", "evaluate", "export", "generate", "score", "train"]

OUTPUT = Path("candidates.jsonl")
"""Where answers go unless told otherwise."""
WEIGHTS = "weights"
"""Folder of a finished run that holds its weights as transformers and peft read them."""


def train(config: DpaRun, *, name: str = "run", resume: Path | None = None, command: str = "") -> Path:
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
        planned = plan(config, processes.world)
        show_plan(planned, processes, inputs.reports())
        folder = open_folder(config.output, name, resume, processes)
        try:
            model = load_causal_lm(config.model, accelerator.device)
            policy = model.policy(config.model.lora, seed=config.seed)
            layout = layout_of(config, policy, inputs, model.tokenizer)
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
                folder=folder.path,
            )
            method = parts.method()
            run.hooks = _hooks(config, parts.evaluator(), run)
            outcome = train_loop(run, method)
            _finish(run, config, inputs, model, finished=outcome.step == config.training.steps)
            processes.barrier()
        finally:
            folder.close()
    return folder.path


def evaluate(config: DpaRun, *, checkpoint: Path | None = None, output: Path | None = None) -> Path:
    """Ask the base model and, if there is one, a checkpoint for every shown direction: the same prompts, paired.

    Args:
        config: the settings.
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
        layout = layout_of(config, policy, inputs, model.tokenizer)
        policy.prepare(accelerator)
        evaluator = Workshop(
            config=config,
            model=model,
            inputs=inputs,
            policy=policy,
            scorer=SequenceScorer(policy, layout, pad_id=model.pad_id),
            processes=processes,
            timer=Timers.for_device(accelerator.device).stage,
            folder=None if source is None else source.parent.parent,
        ).evaluator()
        if evaluator is None:
            raise AlignError("there are no held-out prompts, so there is nothing to evaluate.", "Set `data.heldout`.")
        policy.gather()  # processes make different numbers of passes
        found = [evaluator.evaluate(0, policy.module, "raw")]
        if source is not None:
            weights = load_weights(source, policy)
            found.append(evaluator.evaluate(max(step_number(source.name) or 1, 1), policy.module, weights))
        if processes.is_main:
            save_config(config, made(output) / CONFIG_NAME)
            for evaluation in found:
                write_record(record_path(output, evaluation.step), evaluation)
            write_report(output)
            _print(output)
    return output


def generate(
    config: DpaRun,
    *,
    checkpoint: Path | None = None,
    prompts: Sequence[str] = (),
    prompts_file: Path | None = None,
    seeds: Sequence[int] | None = None,
    output: Path | None = None,
    direction: str | None = None,
    adapter: Path | None = None,
    neighbours: int = 1,
) -> Path:
    """Answer prompts for a direction, into a file of candidates.

    Args:
        config: settings of the run; `algorithm` says how answers are sampled.
        checkpoint: checkpoint or run folder; None asks the base model, in the same words.
        prompts: texts, in place of a file.
        prompts_file: a file of prompts.
        seeds: numbers of the candidates of each prompt; None takes one.
        output: the file, .jsonl or .parquet; None = `candidates.jsonl`.
        direction: what to prefer, such as `relevance=0.8,brevity=0.6`; `auto` takes it from the adapter.
        adapter: a preference adapter of the same objectives, for `auto`: each prompt has a direction of its own.
        neighbours: directions near the asked one that are answered, too; the best answer along the asked one is kept.

    Raises:
        AlignError: no direction, one with an unknown objective or of length 0, an adapter of other objectives, no
            prompt.
    """
    from preference.dpa.answer import answer_along

    return answer_along(
        config,
        checkpoint=checkpoint,
        prompts=prompts,
        prompts_file=prompts_file,
        numbers=(0,) if seeds is None else tuple(seeds),
        output=output or OUTPUT,
        direction=direction,
        adapter=adapter,
        neighbours=neighbours,
    )


def draw_scored(config: DpaRun, *, samples: int, prompts: int, output: Path) -> Path:
    """Sample answers of the base model along drawn directions and score each twice, for `align audit`.

    Args:
        config: the settings; `algorithm` says how the answers of a round are sampled.
        samples: answers to each prompt, all along the prompt's direction.
        prompts: the first so many of the held-out prompts.
        output: folder for the rows.

    Returns:
        The file of rows.
    """
    from preference.dpa.answer import draw_along

    return draw_along(config, samples=samples, prompts=prompts, output=output)


def score(*arguments: object, **options: object) -> NoReturn:
    """Not here.

    Raises:
        AlignError: always; says what scores texts.
    """
    raise AlignError("`align score` knows no directions.", "Score texts with `--branch preference`.")


def export(config: DpaRun, **options: object) -> NoReturn:
    """Not needed: a finished run has its weights as transformers and peft read them.

    Raises:
        AlignError: always; says where the weights are.
    """
    raise AlignError(
        "a finished run of DPA has its weights in the form of transformers and peft.",
        f"They are in `{WEIGHTS}/` of the run folder; `align export RUN/{WEIGHTS}` merges an adapter.",
    )


def _hooks(config: DpaRun, evaluator: SteeringEvaluator | None, run: Run) -> Hooks:
    """Evaluation between steps, with the averaged weights if there are any; nothing where it is off."""
    if evaluator is None:
        return Hooks()

    def evaluate_(step: int) -> Mapping[str, float]:
        with run.averaged_weights() as weights:
            found = evaluator.evaluate(step, run.policy.module, weights)
        if run.processes.is_main:
            write_record(record_path(run.folder.path, step), found)
        return found.metrics()

    return Hooks(evaluate=evaluate_, evaluate_every=config.evaluation.every)


def _finish(run: Run, config: DpaRun, inputs: Inputs, model: LanguageModel, *, finished: bool) -> None:
    """The weights with their control text, and the report. All processes take part: weights may be spread."""
    main, folder = run.processes.is_main, run.folder.path
    if finished:
        with run.averaged_weights(), run.policy.assembled(keep=main):
            if main:
                model.save(folder / WEIGHTS, run.policy)
    if main:
        if finished:
            write_control(folder / WEIGHTS, inputs.control, config.algorithm.directions)
            make_readable(folder / WEIGHTS, like=folder / CONFIG_NAME)
        write_report(folder)


def _print(output: Path) -> None:
    from align.report.terminal import print_report

    print_report(output, _console())


def _console() -> Console:
    from align.cli.app import console

    return console()
