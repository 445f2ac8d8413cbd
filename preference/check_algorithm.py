"""Contradictions within a method's settings, in the words of `preference.losses`. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import singledispatch
from typing import Any

from align.config.errors import Problem
from preference.config import AdpaConfig, DckdConfig, DpoConfig, SimpoConfig
from preference.config.losses import LOSS_OPTIONS, Knows


@singledispatch
def check_algorithm(algorithm: Any) -> Iterator[Problem]:
    """Contradictions within a method's settings (`Any`: the members of `Algorithm`)."""
    return iter(())


@check_algorithm.register
def _(algorithm: DpoConfig) -> Iterator[Problem]:
    mix = algorithm.mix()
    if not mix:
        yield _problem("loss", "the mix of losses is empty. Name at least one, such as {'sigmoid': 1.0}.")
        return
    yield from _check_deaf(algorithm)
    yield from _check_averages(algorithm)
    yield from _check_smoothing(algorithm)
    yield from _check_orphans(algorithm)


@check_algorithm.register
def _(algorithm: SimpoConfig) -> Iterator[Problem]:
    if algorithm.gamma is not None and algorithm.gamma_beta_ratio is not None:
        yield _problem(
            "gamma",
            "give the margin once, as `gamma_beta_ratio` (the authors' code) or as `gamma` (the paper); found both.",
            "gamma_beta_ratio",
        )
    if algorithm.label_smoothing > 0 and algorithm.loss == "hinge":
        message = "`hinge` has no use for label_smoothing. Leave it out, or choose sigmoid."
        yield _problem("label_smoothing", message, "loss")


@check_algorithm.register
def _(algorithm: DckdConfig) -> Iterator[Problem]:
    if algorithm.alpha * (algorithm.chosen_weight + algorithm.rejected_weight) == 0:
        yield _problem("alpha", "all divergences have weight 0: the teacher has no part. Raise `alpha`, or use `sft`.")


@check_algorithm.register
def _(algorithm: AdpaConfig) -> Iterator[Problem]:
    if algorithm.gamma == 0:
        yield _problem("gamma", "gamma is 0, so the teachers have no part in the loss. Raise `gamma`, or use `sft`.")
    if algorithm.teacher.reference is None and algorithm.teacher.adapter is None:
        yield _problem(
            "teacher.reference",
            "the advantage compares an aligned teacher with itself before its preference training, and only one model "
            "is named. Set `teacher.adapter` (it is switched off for the reference), or `teacher.reference`.",
            "teacher.adapter",
        )
    if not isinstance(algorithm.clip, str) and not algorithm.clip[0] < algorithm.clip[1]:
        yield _problem("clip", f"`clip` is a range from low to high, found {list(algorithm.clip)}. Swap the numbers.")


def _problem(key: str, sentences: str, *more: str) -> Problem:
    """What is wrong, and the way out: the last sentence."""
    message, _, way_out = sentences.removesuffix(".").rpartition(". ")
    if not message:
        message, way_out = way_out, ""
    keys = tuple(f"algorithm.{name}" for name in (key, *more))
    return Problem(keys=keys, message=f"{message}.", way_out=f"{way_out}." if way_out else "")


def _check_deaf(algorithm: DpoConfig) -> Iterator[Problem]:
    """An option that a loss would ignore is refused, with the losses that know it."""
    rules: tuple[tuple[bool, str, str, Callable[[Knows], bool]], ...] = (
        (algorithm.label_smoothing > 0, "label_smoothing", "label_smoothing", lambda knows: knows.smoothing),
        (
            algorithm.divergence != "reverse_kl",
            "divergence",
            f"the divergence {algorithm.divergence!r}",
            lambda knows: knows.divergence,
        ),
        (algorithm.wpo, "wpo", "weights of pairs", lambda knows: knows.per_pair),
    )
    for used, key, option, knows in rules:
        deaf = [name for name in algorithm.mix() if not knows(LOSS_OPTIONS[name])]
        if used and deaf:
            able = ", ".join(name for name, known in LOSS_OPTIONS.items() if knows(known))
            sentences = f"`{deaf[0]}` has no use for {option}. Leave it out, or choose one of: {able}."
            yield _problem(key, sentences, "loss")


def _check_averages(algorithm: DpoConfig) -> Iterator[Problem]:
    if algorithm.reads_lengths() and algorithm.divergence != "reverse_kl":
        yield _problem(
            "divergence",
            f"averages over tokens and the divergence {algorithm.divergence!r} do not go together: the reward is a "
            "function of the whole answer's ratio, which has no average. Use reverse_kl, or leave the lengths out "
            "(`ipo_average: false`).",
            "loss",
        )
    if "ipo" in algorithm.mix() and not algorithm.ipo_average and algorithm.reads_lengths():
        yield _problem(
            "ipo_average",
            "`ipo` is to be summed, but another loss of the mix divides by the number of tokens, and the mix has one "
            "kind of log-ratio. Set `ipo_average: true`, or take `ipo` alone.",
            "loss",
        )


def _check_smoothing(algorithm: DpoConfig) -> Iterator[Problem]:
    epsilon = algorithm.label_smoothing
    if "robust" in algorithm.mix() and epsilon >= 0.5:
        message = f"`robust` needs a label_smoothing in [0, 0.5), found {epsilon}: at 0.5 labels say nothing."
        yield _problem("label_smoothing", message, "loss")
    if "exo_pair" in algorithm.mix() and epsilon == 0:
        yield _problem(
            "label_smoothing",
            f"`exo_pair` takes the logarithm of label_smoothing: above 0, please, found {epsilon}. The paper has 1e-3.",
            "loss",
        )


def _check_orphans(algorithm: DpoConfig) -> Iterator[Problem]:
    """A number that belongs to an option which is off."""
    rules = (
        (algorithm.alpha is not None and algorithm.divergence != "alpha", "alpha", "divergence", "`divergence: alpha`"),
        (
            algorithm.discopop_temperature is not None and "discopop" not in algorithm.mix(),
            "discopop_temperature",
            "loss",
            "`loss: discopop`",
        ),
        (not algorithm.ipo_average and "ipo" not in algorithm.mix(), "ipo_average", "loss", "`loss: ipo`"),
    )
    for broken, key, other, owner in rules:
        if broken:
            yield _problem(key, f"`{key}` belongs to {owner}. Leave it out, or set {owner}.", other)
