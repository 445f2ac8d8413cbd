"""What `align train | evaluate` do for reward models: wire the parts, in order. No formula. Others say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

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
from align.errors import AlignError
from align.heldout import write_record
from align.report.build import write_report
from preference.assemble import record_path
from preference.reward_models.assemble import (
    Inputs,
    evaluator_of,
    make_hooks,
    method_of,
    read_inputs,
    sampler_of,
)
from preference.reward_models.config import RewardModelRun, RewardRidgeConfig
from preference.reward_models.files import load_reward_model, save_reward_model
from preference.reward_models.methods import Scored
from preference.reward_models.plan import plan
from preference.reward_models.report import write_reward_report

if TYPE_CHECKING:
    from rich.console import Console

    from preference.reward_models.network import RewardModel

__all__ = ["evaluate", "export", "generate", "score", "train"]

WEIGHTS = "weights"
"""Folder of a finished run that holds the reward model as transformers reads it."""


def train(config: RewardModelRun, *, name: str = "run", resume: Path | None = None, command: str = "") -> Path:
    """Train a reward model, or go on with a run.

    Args:
        config: the run's settings, already checked.
        name: of the run folder where `output.name` is not set; a number is appended.
        resume: run folder to go on with.
        command: what was typed, for the comment in the saved config.

    Returns:
        The run folder, with its report.
    """
    if isinstance(config.algorithm, RewardRidgeConfig):
        from preference.reward_models.frozen import fit

        return fit(config, config.algorithm, name=name, resume=resume, command=command)
    with processes_of(config.training) as (accelerator, processes):
        inputs = read_inputs(config)
        config = with_steps(config, len(inputs.train), config.rows_per_step)
        planned = plan(config, processes.world)
        show_plan(planned, processes, inputs.reports())
        folder = open_folder(config.output, name, resume, processes)
        try:
            model = load_reward_model(config.model, config.names, seed=config.head_seed, device=accelerator.device)
            policy = model.policy(config.model.lora, seed=config.seed)
            run = Run(accelerator, folder, policy, RunSettings.of(config))
            check_resumable(folder, policy)
            write_head(config, folder.path, planned, processes, command=command)
            network = Scored.trained(policy, model.pad_id)
            run.hooks = make_hooks(config, evaluator_of(config, network, inputs, processes), run)
            sampler = sampler_of(config, len(inputs.train), processes)
            outcome = train_loop(run, method_of(config, network, inputs.train, sampler))
            _finish(run, model, inputs, finished=outcome.step == config.training.steps)
            processes.barrier()
        finally:
            folder.close()
    return folder.path


def evaluate(config: RewardModelRun, *, checkpoint: Path | None = None, output: Path | None = None) -> Path:
    """Evaluate the fresh model and, if there is one, a checkpoint, on the same held-out rows.

    Args:
        config: the settings.
        checkpoint: checkpoint or run folder; None evaluates the model as `model.path` has it.
        output: folder for the records; None takes `evaluation/` in the run folder, or in the working directory.

    Returns:
        The folder; it has the layout of a run folder, and the report of the reward model.
    """
    if isinstance(config.algorithm, RewardRidgeConfig):
        raise AlignError(
            "a ridge regression has no checkpoints; its run has evaluated it already.",
            "See reward_report.md and evaluations/ in the run folder.",
        )
    with processes_of(config.training) as (accelerator, processes):
        inputs = read_inputs(config)
        source = None if checkpoint is None else find_checkpoint(checkpoint)
        output = output or evaluation_folder(source)
        model = load_reward_model(config.model, config.names, seed=config.head_seed, device=accelerator.device)
        policy = model.policy(config.model.lora, seed=config.seed)
        policy.prepare(accelerator)
        evaluator = evaluator_of(config, Scored.trained(policy, model.pad_id), inputs, processes)
        if evaluator is None:
            raise AlignError("nothing is held out, so there is nothing to evaluate.", "Set `data.heldout`.")
        policy.gather()  # processes score different numbers of rows
        results = [(0, "raw", evaluator())]
        if source is not None:
            weights = load_weights(source, policy)
            results.append((max(step_number(source.name) or 1, 1), weights, evaluator()))
        if processes.is_main:
            save_config(config, made(output) / CONFIG_NAME)
            for step, weights, found in results:
                write_record(record_path(output, step), found.record(step, weights))
                write_reward_report(output, found, step, weights)
            write_report(output)
    return output


def generate(config: RewardModelRun, **options: object) -> NoReturn:
    """Not for reward models.

    Raises:
        AlignError: always.
    """
    raise AlignError("a reward model scores answers and writes none.", "Give the config or run of a language model.")


def score(*arguments: object, **options: object) -> NoReturn:
    """Not here: a reward model is a reward like any other.

    Raises:
        AlignError: always; says how texts are scored with it.
    """
    raise AlignError(
        "`align score --branch reward_model` does not exist: a reward model is a reward by name.",
        "Name it where rewards are named: `function: reward_model, options: {path: runs/my_run}`.",
    )


def export(config: RewardModelRun, **options: object) -> NoReturn:
    """Not needed: a finished run has its weights as transformers reads them.

    Raises:
        AlignError: always; says where the weights are.
    """
    raise AlignError(
        "`align export` writes weights of image models.",
        f"A finished run of a reward model has them in `{WEIGHTS}/`: AutoModelForSequenceClassification reads it.",
    )


def _finish(run: Run, model: RewardModel, inputs: Inputs, *, finished: bool) -> None:
    """The weights as transformers reads them, and the report. All processes take part: weights may be spread."""
    main = run.processes.is_main
    if finished:
        with run.averaged_weights(), run.policy.assembled(keep=main):
            if main:
                save_reward_model(model, run.folder.path / WEIGHTS, run.policy, inputs.card)
    if main:
        if finished:
            make_readable(run.folder.path / WEIGHTS, like=run.folder.path / CONFIG_NAME)
        write_report(run.folder.path)


def _console() -> Console:
    from align.cli.app import console

    return console()
