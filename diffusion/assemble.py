"""From settings to the objects of a run. Whatever a user can get wrong is read here, before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.config.needs import check_needs
from align.engine.adapters import Policy
from align.engine.algorithm import Algorithm
from align.engine.hooks import Hooks
from align.engine.trackers import Picture
from align.errors import AlignError
from align.rewards.scorer import Scorer
from align.shaping.pipeline import SignalPipeline
from diffusion.awm import Awm
from diffusion.collect import Collector
from diffusion.config import (
    AwmConfig,
    DanceGrpoConfig,
    DdpoConfig,
    DiffusionDpoConfig,
    DiffusionRun,
    FlowGrpoConfig,
    LoopConfig,
    NftConfig,
    OnlineDpoConfig,
    ReinforceConfig,
    RwrConfig,
    SftBestConfig,
    SftConfig,
)
from diffusion.dance_grpo import DanceGrpo
from diffusion.ddpo import Ddpo
from diffusion.diffusion_dpo import DiffusionDpo
from diffusion.directions.ask import Asker
from diffusion.directions.assemble import guided, with_embedding
from diffusion.directions.evaluate import SteeringEvaluator, first_prompts
from diffusion.evaluate import Evaluator, evaluation_sampler
from diffusion.flow_grpo import FlowGrpo
from diffusion.inputs import providers_for
from diffusion.loop import Loop
from diffusion.models.base import DiffusionModel
from diffusion.nft import Nft
from diffusion.online_dpo import OnlineDpo
from diffusion.prompt_encoder import weigher_for
from diffusion.prompts import PromptSet, read_prompts
from diffusion.records import write_evaluation, write_strip
from diffusion.reinforce import Reinforce
from diffusion.rwr import Rwr
from diffusion.sft import Sft
from diffusion.sft_best import SftBest
from diffusion.stored_pictures import StoredPictures, read_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from align.engine.distributed import Processes
    from align.engine.run import Run

ALGORITHMS = {
    AwmConfig: Awm,
    ReinforceConfig: Reinforce,
    DdpoConfig: Ddpo,
    LoopConfig: Loop,
    FlowGrpoConfig: FlowGrpo,
    DanceGrpoConfig: DanceGrpo,
    NftConfig: Nft,
    OnlineDpoConfig: OnlineDpo,
    RwrConfig: Rwr,
    SftBestConfig: SftBest,
}
"""Settings -> method that learns from rollouts."""
OFFLINE_ALGORITHMS = {DiffusionDpoConfig: DiffusionDpo, SftConfig: Sft}
"""Settings -> method that learns from stored pictures."""
ACROSS_PROCESSES = (OnlineDpo, Rwr, SftBest)
"""Methods that compare or exchange the samples of all processes by themselves."""
PICTURES = 24
"""How many rows of an evaluation keep their picture."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads.

    Attributes:
        prompts: to train on.
        heldout: to evaluate on, None where evaluation is off.
        scorer: the rewards that are trained on or logged.
        evaluation_scorer: these and the rewards that are only evaluated.
        pictures: to learn from, None for a method that draws its own.
    """

    prompts: PromptSet
    heldout: PromptSet | None
    scorer: Scorer
    evaluation_scorer: Scorer
    pictures: StoredPictures | None = None


def read_inputs(config: DiffusionRun) -> Inputs:
    """Read prompts and stored pictures, and find rewards.

    Raises:
        AlignError: a file or a reward that cannot be used, or an estimator that needs what pictures do not have;
            says where and what to do.
    """
    check_estimators(config)
    prompts = read_prompts(config.prompts.train)
    heldout = None if config.prompts.heldout is None else read_prompts(config.prompts.heldout)
    scorer = Scorer(config.rewards)
    scorer.check({"prompts", "images", *prompts.columns})
    scorer.check_rows({**prompts.columns, "prompts": prompts.prompts})
    evaluation_scorer = Scorer((*config.rewards, *config.evaluation.rewards))
    if heldout is not None:
        evaluation_scorer.check({"prompts", "images", *heldout.columns})
        evaluation_scorer.check_rows({**heldout.columns, "prompts": heldout.prompts})
    data = getattr(config.algorithm, "data", None)
    return Inputs(
        prompts=prompts,
        heldout=heldout,
        scorer=scorer,
        evaluation_scorer=evaluation_scorer,
        pictures=None if data is None else read_pictures(data),
    )


def check_estimators(config: DiffusionRun) -> None:
    """Refuse a pipeline whose estimators need what a step of pictures does not bring.

    Raises:
        AlignError: names the estimator and the fields.
    """
    problems = tuple(check_needs(config.pipeline, providers_for(config)))
    if problems:
        raise AlignError("; ".join(f"`pipeline`: {problem.message}" for problem in problems), problems[0].way_out)


def make_policy(config: DiffusionRun, model: DiffusionModel, *, keep_reference: bool = False) -> Policy:
    """The trained weights of a model: fresh adapters, or all of them; and the embedding of its directions.

    Args:
        config: the run's settings.
        model: the loaded model.
        keep_reference: whether the weights from before training are needed; free with adapters, a second copy without.
    """
    lora = config.model.lora
    identity = model.fingerprint()
    if lora is None:
        policy = Policy.full(model.network, keep_reference=keep_reference, identity=identity)
    else:
        targets = model.lora_targets(lora.targets)
        policy = Policy.lora(model.network, lora, targets, seed=config.seed, identity=identity)
    return with_embedding(config, policy)


def make_evaluator(
    config: DiffusionRun,
    model: DiffusionModel,
    inputs: Inputs,
    processes: Processes,
    timer: Callable,
    folder: Callable[[], Path | None] = lambda: None,
) -> Evaluator | None:
    """The held-out evaluation, None where it is off.

    Args:
        config: the run's settings.
        model: the model family.
        inputs: what the run reads.
        processes: who shares the work.
        timer: `timer(stage)` is a context manager.
        folder: of the run, where its first evaluation lies.
    """
    if inputs.heldout is None:
        return None
    options: dict[str, Any] = {  # Any: each argument has its own type
        "scorer": inputs.evaluation_scorer,
        "processes": processes,
        "timer": timer,
        "settings": evaluation_sampler(config.evaluation, config.rollout),
    }
    asker = Asker.of(config)
    if asker is None or config.directions is None:
        return Evaluator(config.evaluation, model=model, prompts=inputs.heldout, **options)
    shown = config.directions.shown
    return SteeringEvaluator(
        config.evaluation,
        model=guided(model, shown.guidance),
        asker=asker,
        prompts=first_prompts(inputs.heldout, shown.prompts),
        reference=shown.reference,
        folder=folder,
        **options,
    )


def make_hooks(config: DiffusionRun, evaluator: Evaluator | None, run: Run) -> Hooks:
    """Evaluation and progress strip between steps, both with the averaged weights; nothing where evaluation is off."""
    if evaluator is None:
        return Hooks()

    def evaluate(step: int) -> Mapping[str, float]:
        with run.averaged_weights() as weights:
            found = evaluator.evaluate(step, run.policy.module, weights, PICTURES)
        if run.processes.is_main:
            write_evaluation(run.folder.path, found)
        return found.metrics()

    def strip(step: int) -> list[Picture]:
        with run.averaged_weights() as weights:
            found = evaluator.strip(step, run.policy.module, weights)
        if run.processes.is_main:
            write_strip(run.folder.path, found)
        return [Picture(image=image, caption=row.prompt) for row, image in zip(found.rows, found.images, strict=True)]

    return Hooks(
        evaluate=evaluate,
        evaluate_every=config.evaluation.every,
        pictures=strip,
        pictures_every=config.evaluation.strip_every if config.evaluation.strip_prompts else 0,
    )


def make_algorithm(config: DiffusionRun, model: DiffusionModel, inputs: Inputs, run: Run) -> Algorithm:
    """The method of a run."""
    if inputs.pictures is not None:
        offline = OFFLINE_ALGORITHMS[type(config.algorithm)]
        parts = {"model": model, "policy": run.policy, "processes": run.processes, "timer": run.timer}
        return offline(config, inputs.pictures, **parts)
    collector = Collector(
        config,
        model=model,
        prompts=inputs.prompts,
        scorer=inputs.scorer,
        pipeline=SignalPipeline(config.pipeline),
        processes=run.processes,
        timer=run.timer,
        reference=run.policy.reference,
        weigher=weigher_for(config, model),
        asker=Asker.of(config),
    )
    method = ALGORITHMS[type(config.algorithm)]
    more = {"processes": run.processes} if method in ACROSS_PROCESSES else {}
    return method(collector, model=model, policy=run.policy, timer=run.timer, **more)
