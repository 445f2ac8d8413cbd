"""Answers along a direction that is chosen now: `align generate RUN --direction relevance=0.8,brevity=0.6`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from align.engine.command import processes_of
from align.engine.saving import find_checkpoint
from align.errors import AlignError
from preference.audit import draw_answers
from preference.config import CandidatesConfig, PairsConfig, PreferenceRun
from preference.data import Texts
from preference.dpa.assemble import heldout_prompts
from preference.dpa.config import DpaRun
from preference.dpa.control import Control, Vector, draw
from preference.dpa.deploy import outside, parse_direction
from preference.dpa.method import token_settings
from preference.generate import LocalAnswers, given_prompts, weights_of, write_candidates
from preference.models import load_causal_lm

log = logging.getLogger(__name__)

TOLERANCE = 1.0
"""Degrees beyond the trained directions that rounding explains."""


def answer_along(
    config: DpaRun,
    *,
    checkpoint: Path | None,
    prompts: Sequence[str],
    prompts_file: Path | None,
    numbers: Sequence[int],
    output: Path,
    direction: str | None,
) -> Path:
    """Sample answers along a direction; see `commands.generate`."""
    control, vector = asked_direction(config, direction)
    run = as_preference_run(config)
    settings = run.candidates
    assert settings is not None  # it was just made
    texts = given_prompts(run, settings, prompts, prompts_file)
    asked = replace(texts, rows=tuple(control.asked(row, vector) for row in texts.rows))
    source = None if checkpoint is None else find_checkpoint(checkpoint)
    with processes_of(config.training) as (accelerator, processes):
        model = load_causal_lm(config.model, accelerator.device)
        network, label = weights_of(run, model, source)
        answers = LocalAnswers(model, network, label, run, settings, asked)
        write_candidates(
            _labelled(asked, control, vector), answers, numbers, seed=config.seed, output=output, processes=processes
        )
    return output


def draw_along(config: DpaRun, *, samples: int, prompts: int, output: Path) -> Path:
    """Answers to held-out prompts, each prompt with a direction as the first round draws them; see
    `commands.draw_scored`.

    Raises:
        AlignError: no held-out prompts, or none that the rewards can score.
    """
    control = Control.of(config.algorithm, config.reward_names())
    limited = replace(config.evaluation.generate, limit=prompts)
    plain = heldout_prompts(replace(config, evaluation=replace(config.evaluation, generate=limited)))
    if plain is None:
        raise AlignError("there are no held-out prompts to answer.", "Set `data.heldout`.")
    vectors = draw(config.algorithm.directions, control, len(plain), config.seed, 1)
    asked = replace(plain, rows=tuple(control.asked(row, one) for row, one in zip(plain.rows, vectors, strict=True)))
    run = as_preference_run(config)
    assert run.candidates is not None  # it was just made
    return draw_answers(run, run.candidates, config.scoring()[0], plain, asked, samples=samples, output=output)


def asked_direction(config: DpaRun, direction: str | None) -> tuple[Control, Vector]:
    """The direction as its prompt shows it; a warning where training never drew such a one.

    Raises:
        AlignError: none, one with an unknown objective, or of length 0.
    """
    control = Control.of(config.algorithm, config.reward_names())
    if direction is None:
        raise AlignError(
            "a policy of DPA answers for a direction, and none is given.",
            f"Add `--direction {control.names[0]}=1`; its objectives are {', '.join(control.names)}.",
        )
    vector = control.vector(parse_direction(direction))
    beyond = outside(control, config.algorithm.directions, vector)
    if beyond > TOLERANCE:
        log.warning(
            "%s is %.0f degrees beyond the directions that were trained: the policy has never seen such a control",
            control.label(vector),
            beyond,
        )
    return control, vector


def as_preference_run(config: DpaRun) -> PreferenceRun:
    """What `preference.generate` reads, with the sampling of the rounds."""
    algorithm = config.algorithm
    return PreferenceRun(
        seed=config.seed,
        model=config.model,
        data=PairsConfig(**token_settings(config.data)),
        training=config.training,
        candidates=CandidatesConfig(
            max_new_tokens=algorithm.max_new_tokens,
            temperature=algorithm.temperature,
            top_p=min(1.0, algorithm.top_p),
            batch_size=algorithm.batch_size,
        ),
    )


def _labelled(texts: Texts, control: Control, vector: Vector) -> Texts:
    """With the direction as a column of each row."""
    label = control.label(vector)
    return replace(texts, columns={**texts.columns, "direction": (label,) * len(texts)})
