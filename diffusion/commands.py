"""What `align train | evaluate | generate | score` do for text-to-image models: wire the parts, in order. No formula.

The command line imports this module late: it loads torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli.head import show_plan, write_head
from align.config.checks import reward_name
from align.config.lengths import with_steps
from align.config.load import CONFIG_NAME, save_config
from align.config.shared import RewardConfig
from align.engine.checkpoint import make_readable
from align.engine.command import check_resumable, evaluation_folder, made, open_folder, processes_of
from align.engine.distributed import start_accelerator
from align.engine.folder import step_number
from align.engine.loop import train as train_loop
from align.engine.run import Run
from align.engine.saving import find_checkpoint, load_weights
from align.engine.settings import RunSettings
from align.engine.timers import Timers
from align.errors import AlignError
from align.report.build import write_report
from diffusion import audit
from diffusion.assemble import PICTURES, Inputs, make_algorithm, make_evaluator, make_hooks, make_policy, read_inputs
from diffusion.config import DiffusionRun
from diffusion.directions.assemble import guided, steered
from diffusion.directions.deploy import asked_direction
from diffusion.directions.files import load_embedding, write_directions
from diffusion.directions.readable import check_readable, with_directions
from diffusion.evaluate import evaluation_sampler
from diffusion.export.command import export
from diffusion.generate import draw
from diffusion.inputs import keeps_reference
from diffusion.models import load_model
from diffusion.models.lora import is_lora_folder, load_lora
from diffusion.models.prompt_length import check_prompt_lengths
from diffusion.needs import rows_per_step
from diffusion.plan import plan
from diffusion.prompts import PromptSet, read_prompts
from diffusion.records import write_evaluation
from diffusion.score import CONTACT_SHEET, Scores, find_images, image_files, score_images
from diffusion.tables import base_table, gain_table, score_table

if TYPE_CHECKING:
    from rich.console import Console

    from align.engine.adapters import Policy
    from diffusion.models.base import DiffusionModel

__all__ = ["draw_scored", "evaluate", "export", "generate", "score", "train"]

OUTPUT = Path("pictures")
"""Where `align generate` writes without `--output`."""
WEIGHTS = "weights"
"""Folder of a finished run that holds its weights as diffusers reads them."""


def train(config: DiffusionRun, *, name: str = "run", resume: Path | None = None, command: str = "") -> Path:
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
        if inputs.pictures is not None:
            config = with_steps(config, len(inputs.pictures), rows_per_step(config))
        _check_lengths(config, _texts(config, inputs), tell=processes.is_main)
        check_readable(config, inputs.prompts.prompts[0])
        show_plan(plan(config, processes.world), processes)
        folder = open_folder(config.output, name, resume, processes)
        try:
            model = load_model(config.model, accelerator.device)
            policy = make_policy(config, model, keep_reference=keeps_reference(config))
            model = steered(model)
            run = Run(accelerator, folder, policy, RunSettings.of(config))
            check_resumable(folder, policy)
            write_head(config, folder.path, plan(config, processes.world), processes, command=command)
            evaluator = make_evaluator(config, model, inputs, run.processes, run.timer, lambda: folder.path)
            run.hooks = make_hooks(config, evaluator, run)
            outcome = train_loop(run, make_algorithm(config, model, inputs, run))
            _finish(run, config, model, finished=outcome.step == config.training.steps)
            processes.barrier()
        finally:
            folder.close()
    return folder.path


def evaluate(config: DiffusionRun, *, checkpoint: Path | None = None, output: Path | None = None) -> Path:
    """Evaluate the base model and, if there is one, a checkpoint: the same held-out prompts and seeds, paired.

    Args:
        config: the settings; `evaluation` and `prompts.heldout` say what is drawn.
        checkpoint: checkpoint, run folder or folder of exported LoRA weights; None evaluates the base alone.
        output: folder for the records; None takes `evaluation/` in the run folder, or in the working directory.

    Returns:
        The folder; it has the layout of a run folder, and its page shows pictures of the base and the checkpoint side
        by side.
    """
    with processes_of(config.training) as (accelerator, processes):
        inputs = read_inputs(config)
        if inputs.heldout is None:
            raise AlignError(
                "`prompts.heldout` is null, so there is nothing to evaluate on.",
                "Set prompts.heldout to a prompt file.",
            )
        _check_lengths(config, {str(config.prompts.heldout): inputs.heldout}, tell=processes.is_main)
        source = None if checkpoint is None else _weights_of(checkpoint)
        output = output or evaluation_folder(source)
        model = load_model(config.model, accelerator.device)
        policy = make_policy(config, model)
        policy.prepare(accelerator)
        policy.gather()  # processes draw different numbers of pictures
        timer = Timers.for_device(accelerator.device).stage
        evaluator = make_evaluator(config, steered(model), inputs, processes, timer)
        assert evaluator is not None  # for the type checker: there are held-out prompts
        found = [evaluator.evaluate(0, policy.module, "raw", PICTURES)]
        if source is not None:
            weights = _load(source, policy)
            found.append(evaluator.evaluate(max(step_number(source.name) or 1, 1), policy.module, weights, PICTURES))
        if processes.is_main:
            save_config(config, made(output) / CONFIG_NAME)
            for evaluation in found:
                write_evaluation(output, evaluation)
            write_report(output)
            _console().print(gain_table(*found) if len(found) > 1 else base_table(found[0]))
    return output


def draw_scored(config: DiffusionRun, *, samples: int, prompts: int, output: Path) -> Path:
    """Draw held-out pictures of the base model and score each twice, for `align audit`.

    Args:
        config: the settings; `evaluation` and `prompts.heldout` say what is drawn.
        samples: pictures of each prompt.
        prompts: how many of the held-out prompts, classes taken in turn.
        output: folder for the rows and the pictures.

    Returns:
        The file of rows.
    """
    with processes_of(config.training) as (accelerator, processes):
        if processes.world > 1:
            raise AlignError("`align audit` draws in one process.", "Start it without a launcher.")
        inputs = read_inputs(config)
        if inputs.heldout is None:
            raise AlignError(
                "`prompts.heldout` is null, so there is nothing to draw.", "Set prompts.heldout to a prompt file."
            )
        _check_lengths(config, {str(config.prompts.heldout): inputs.heldout}, tell=True)
        model = load_model(config.model, accelerator.device)
        policy = make_policy(config, model)
        policy.prepare(accelerator)
        found = audit.scored_pictures(
            model,
            policy.module,
            inputs.heldout,
            inputs.evaluation_scorer,
            evaluation_sampler(config.evaluation, config.rollout),
            Timers.for_device(accelerator.device).stage,
            samples=samples,
            prompts=prompts,
        )
        rewards = (*config.rewards, *config.evaluation.rewards)
        cached = [reward_name(one) for one in rewards if audit.is_cached(one)]
        return audit.write_rows(found, output, cached)


def generate(
    config: DiffusionRun,
    *,
    checkpoint: Path | None = None,
    prompts: Sequence[str] = (),
    prompts_file: Path | None = None,
    seeds: Sequence[int] | None = (0,),
    output: Path = OUTPUT,
    direction: str | None = None,
) -> list[Path]:
    """Draw pictures and a contact sheet of them, with the settings of the evaluation.

    Args:
        config: the settings.
        checkpoint: checkpoint, run folder or folder of exported LoRA weights; None draws with the base model.
        prompts: texts.
        prompts_file: a file with more of them.
        seeds: one picture of each prompt for each seed; None takes 0, 1, 2, 3.
        output: folder for the pictures, `grid.png` and `pictures.jsonl`.
        direction: of a run with `directions`: what to prefer, such as `shapes=0.8,brevity=0.6`.

    Returns:
        The pictures' files: all seeds of the first prompt, then of the second, ...
    """
    from align.report.grids import contact_sheet

    seeds = range(4) if seeds is None else seeds
    texts = [*prompts, *(() if prompts_file is None else read_prompts(str(prompts_file)).prompts)]
    if not texts or not seeds:
        raise AlignError("there is no prompt or no seed, so there is nothing to draw.", "Give at least one of each.")
    asked = asked_direction(config, direction)
    _check_lengths(config, {"the prompts to draw": PromptSet(prompts=tuple(texts))}, tell=True)
    source = None if checkpoint is None else _weights_of(checkpoint)
    accelerator = start_accelerator(config.training.mixed_precision)
    model = load_model(config.model, accelerator.device)
    policy = make_policy(config, model)
    policy.prepare(accelerator)
    if source is not None:
        _load(source, policy)
    if config.directions is not None:
        model = guided(steered(model), config.directions.shown.guidance)
    settings = evaluation_sampler(config.evaluation, config.rollout)
    images = draw(model, policy.module, texts, seeds, settings, None if asked is None else asked.encode)
    pairs = [(prompt, seed) for prompt in texts for seed in seeds]
    paths = [made(output) / f"{number:03d}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    captions = [f"{prompt} ({seed})" for prompt, seed in pairs]
    contact_sheet(images, columns=len(seeds) if len(seeds) > 1 else 4, captions=captions).save(output / CONTACT_SHEET)
    more = {} if asked is None else {"direction": asked.label}
    rows = [
        {"image": path.name, "prompt": prompt, "seed": seed, **more}
        for path, (prompt, seed) in zip(paths, pairs, strict=True)
    ]
    (output / "pictures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths


def score(
    images: Path, *, rewards: Sequence[RewardConfig | str], prompts: Path | None = None, output: Path | None = None
) -> Scores:
    """Score a folder of pictures, print the means, and write the rows if asked to.

    Args:
        images: folder of pictures.
        rewards: names as in a config, or whole settings.
        prompts: a prompt file, one row per picture; None scores without prompts.
        output: JSONL file for the scores.
    """
    configs = [RewardConfig(function=reward) if isinstance(reward, str) else reward for reward in rewards]
    rows = _without_prompts(images) if prompts is None else read_prompts(str(prompts))
    scores = score_images(find_images(images, rows), rows, configs)
    if output is not None:
        scores.write(output)
    _console().print(score_table(scores))
    for name, counts in scores.problems.items():
        for message, count in counts.items():
            _console().print(f"{name}, {count} pictures: {message}", soft_wrap=True, markup=False)
    return scores


def _texts(config: DiffusionRun, inputs: Inputs) -> dict[str, PromptSet | None]:
    """What the text encoders will read, by where it comes from."""
    heldout = {str(config.prompts.heldout): inputs.heldout}
    if inputs.pictures is not None:
        return {str(inputs.pictures.table.path): PromptSet(prompts=inputs.pictures.prompts), **heldout}
    return {config.prompts.train: inputs.prompts, **heldout}


def _check_lengths(config: DiffusionRun, given: Mapping[str, PromptSet | None], *, tell: bool) -> None:
    """Refuse prompts that are longer than the model reads, or tell how many are cut off."""
    texts = {name: rows.prompts for name, rows in given.items() if rows is not None}
    notes = check_prompt_lengths(config.model, with_directions(config, texts))
    for note in notes if tell else ():
        _console().print(note, soft_wrap=True, markup=False)


def _finish(run: Run, config: DiffusionRun, model: DiffusionModel, *, finished: bool) -> None:
    """The weights as diffusers reads them, and the report. All processes take part: weights may be spread over them."""
    main = run.processes.is_main
    if finished:
        with run.averaged_weights(), run.policy.assembled(keep=main):
            if main:
                write_directions(model.save(run.folder.path / WEIGHTS, run.policy), config, run.policy)
    if main:
        if finished:
            make_readable(run.folder.path / WEIGHTS, like=run.folder.path / CONFIG_NAME)
        write_report(run.folder.path)


def _weights_of(path: Path) -> Path:
    """The folder of weights that a path means; an error here comes before a model is loaded."""
    return path if is_lora_folder(path) else find_checkpoint(path)


def _load(source: Path, policy: Policy) -> str:
    """Put weights into a policy; which they are, "ema" or "raw"."""
    if is_lora_folder(source):
        load_lora(source, policy)
        load_embedding(source, policy)
        return "raw"
    return load_weights(source, policy)


def _without_prompts(images: Path) -> PromptSet:
    return PromptSet(prompts=("",) * len(image_files(images)))


def _console() -> Console:
    from align.cli.app import console

    return console()
