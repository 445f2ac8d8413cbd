"""Contradictions of Directional Preference Alignment on pictures. Torch-free. One small function per rule."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from align.config.check_directions import asks_for_less, check_directions
from align.config.errors import Problem
from align.config.estimators import DdpoTracked, ReinforcePP
from align.config.shaping import Affine, Directional, DrawnDirection, Lexicographic, WeightedSum
from diffusion.config import DiffusionRun
from diffusion.config.directions import EmbeddingCondition, PromptCondition
from diffusion.needs import is_offline

ACROSS_DIRECTIONS = (ReinforcePP, DdpoTracked)
"""Estimators whose baseline is not the group's: the whole batch, or the prompt in all steps."""


def check_steering(config: DiffusionRun) -> Iterator[Problem]:
    """Every rule."""
    rules = (_check_source, _check_method, _check_objectives, _check_sample, _check_condition, _check_guidance)
    return chain.from_iterable(rule(config) for rule in rules)


def _check_source(config: DiffusionRun) -> Iterator[Problem]:
    """Directions that nobody scores along, or weights that nobody draws."""
    drawn = isinstance(config.pipeline.weights, DrawnDirection)
    keys = ("directions", "pipeline.weights")
    if config.directions is not None and not drawn and not is_offline(config):
        yield Problem(
            keys=keys,
            message=(
                f"the model is told a direction, but scores use other weights (`pipeline.weights: "
                f"{{kind: {config.pipeline.weights.kind}}}`): it could not learn to follow."
            ),
            way_out="Set `pipeline.weights: {kind: drawn_direction}`, or remove `directions`.",
        )
    if config.directions is None and drawn:
        yield Problem(
            keys=keys,
            message="`pipeline.weights: {kind: drawn_direction}` scores along directions that nobody draws.",
            way_out="Add `directions`, such as `{sample: {kind: arc}, condition: {kind: embedding}}`.",
        )


def _check_method(config: DiffusionRun) -> Iterator[Problem]:
    """Stored pictures were drawn for no direction."""
    if config.directions is not None and is_offline(config):
        yield Problem(
            keys=("directions", "algorithm.kind"),
            message=f"`{config.algorithm.kind}` learns from stored pictures, which were drawn for no direction.",
            way_out="Choose a method that draws its own: `sft_best`, `online_dpo`, `rwr`, `awm`, `flow_grpo`, ...",
        )


def _check_objectives(config: DiffusionRun) -> Iterator[Problem]:
    """Fewer than two objectives; a combination or a transform under which a component would mean something else."""
    if config.directions is None or is_offline(config):
        return
    names, pipeline = config.objectives(), config.pipeline
    if config.rewards and len(names) < 2:
        yield Problem(
            keys=("rewards", "directions"),
            message=f"directions need at least two objectives, found {len(names)}: rewards of weight 0 are metrics.",
            way_out="Add a reward, or give one more of them a weight; how large it is does not matter.",
        )
    if isinstance(pipeline.base, ACROSS_DIRECTIONS):
        yield Problem(
            keys=("pipeline.base", "directions"),
            message=f"`{pipeline.base.kind}` compares the scores of groups that ask for different directions.",
            way_out="Choose an estimator that compares within the group: `flow_grpo`, `grpo`, `rloo`, ...",
        )
    if isinstance(pipeline.combine, Lexicographic):
        yield Problem(
            keys=("pipeline.combine", "directions"),
            message="`combine: lexicographic` has an order in place of weights, so no direction could change a score.",
            way_out="Use `combine: {kind: directional}`.",
        )
    takes_negative = isinstance(pipeline.combine, Directional) or (
        isinstance(pipeline.combine, WeightedSum) and pipeline.combine.allow_negative
    )
    if asks_for_less(config.directions.sample) and not takes_negative:
        yield Problem(
            keys=("directions.sample", "pipeline.combine"),
            message=f"drawn components may be negative, but `combine: {pipeline.combine.kind}` takes no such weight.",
            way_out="Use `combine: {kind: directional}`, or draw no negative components.",
        )
    for number, transform in enumerate(pipeline.transforms):
        named = names if (given := getattr(transform, "rewards", None)) is None else given
        if isinstance(transform, Affine) and transform.scale < 0 and set(named).intersection(names):
            yield Problem(
                keys=(f"pipeline.transforms.{number}.scale", "directions"),
                message="an objective is turned round (`scale` below 0), so more of it in a direction would mean less.",
                way_out="Use a reward that grows with what is wanted, or ask for less with a negative component.",
            )


def _check_sample(config: DiffusionRun) -> Iterator[Problem]:
    """Directions that cannot be."""
    given = config.directions
    if given is not None and config.rewards:
        shown = {"directions.shown.directions": given.shown.directions}
        yield from check_directions(given.sample, config.objectives(), "directions.sample", shown)


def _check_condition(config: DiffusionRun) -> Iterator[Problem]:
    """A control text without a slot, or an embedding that is never told a direction."""
    given = config.directions
    if given is None:
        return
    condition = given.condition
    if isinstance(condition, PromptCondition) and condition.template is not None:
        missing = [name for name in config.objectives() if f"{{{name}}}" not in condition.template]
        if missing:
            yield Problem(
                keys=("directions.condition.template",),
                message=f"the control text has no slot for the objective `{missing[0]}`.",
                way_out=f"Write {{{missing[0]}}} where its number goes.",
            )
    if isinstance(condition, EmbeddingCondition) and condition.dropout == 1:
        yield Problem(
            keys=("directions.condition.dropout",),
            message="every group is drawn without a direction (`dropout: 1`): the model could not learn to follow.",
            way_out="Set it to 0.1.",
        )


def _check_guidance(config: DiffusionRun) -> Iterator[Problem]:
    """Guidance over the direction without anything to compare with."""
    given = config.directions
    if given is None or given.shown.guidance == 1:
        return
    if isinstance(given.condition, PromptCondition) or given.condition.dropout == 0:
        yield Problem(
            keys=("directions.shown.guidance", "directions.condition"),
            message=(
                f"guidance over the direction ({given.shown.guidance:g}) compares with a pass without one, and this "
                "model is not trained without one."
            ),
            way_out="Set `directions.condition: {kind: embedding, dropout: 0.1}`, or `directions.shown.guidance: 1`.",
        )
