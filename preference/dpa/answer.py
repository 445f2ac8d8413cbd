"""Answers along a direction that is chosen now: `align generate RUN --direction relevance=0.8,brevity=0.6`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from align.engine.command import processes_of
from align.engine.saving import find_checkpoint
from align.errors import AlignError
from align.rewards.scorer import Scorer
from preference.audit import draw_answers
from preference.config import CandidatesConfig, PairsConfig, PreferenceRun
from preference.data import Texts
from preference.dpa.assemble import ROUNDS, heldout_prompts, stored_scale
from preference.dpa.auto import AUTO, check_adapter, inferred_directions
from preference.dpa.config import DpaRun
from preference.dpa.control import Control, Vector, draw
from preference.dpa.deploy import outside, parse_direction
from preference.dpa.method import token_settings
from preference.dpa.nearby import BestNearby, asked_nearby, neighbours_of
from preference.dpa.read_back import check_read_back
from preference.generate import AnswerSource, LocalAnswers, given_prompts, weights_of, write_candidates
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
    adapter: Path | None = None,
    neighbours: int = 1,
) -> Path:
    """Sample answers along a direction; see `commands.generate`."""
    control = Control.of(config.algorithm, config.reward_names())
    direction = _checked(control, direction, adapter)
    run = as_preference_run(config)
    settings = run.candidates
    assert settings is not None  # it was just made
    source = None if checkpoint is None else find_checkpoint(checkpoint)
    if source is not None and trained_on_turns(source.parent.parent):
        run = replace(run, data=replace(run.data, plain_as_chat=True))
    texts = given_prompts(run, settings, prompts, prompts_file)
    labelled, vectors = _directions(config, control, texts, direction, adapter)
    near = [
        neighbours_of(one, neighbours, config.seed, number) for one, number in zip(vectors, texts.numbers, strict=True)
    ]
    asked = asked_nearby(texts, control, near)
    chooses = None if neighbours == 1 else _chooser(config, control, texts, near, source)
    with processes_of(config.training) as (accelerator, processes):
        model = load_causal_lm(config.model, accelerator.device)
        check_read_back(control, list(dict.fromkeys(vectors)), texts, model.tokenizer, run.data)
        network, label = weights_of(run, model, source)
        answers: AnswerSource = LocalAnswers(model, network, label, run, settings, asked)
        answers = answers if chooses is None else chooses(answers)
        shown = replace(labelled, rows=tuple(control.asked(*one) for one in zip(texts.rows, vectors, strict=True)))
        write_candidates(shown, answers, numbers, seed=config.seed, output=output, processes=processes)
    return output


def trained_on_turns(folder: Path) -> bool:
    """Whether the prompts of a run's rounds are conversations: then a plain text is asked as a user's turn, because
    without the chat template the policy would be asked in a way that it has never seen."""
    first = folder / ROUNDS / "round_01.jsonl"
    if not first.is_file():
        return False
    with first.open(encoding="utf-8") as file:
        line = file.readline()
    return bool(line) and isinstance(json.loads(line)["prompt"], list)


def _checked(control: Control, direction: str | None, adapter: Path | None) -> str:
    """The direction; refused, before anything is read, where there is none or an adapter does not go with it."""
    names = control.names
    if direction is None:
        raise AlignError(
            "a policy of DPA answers for a direction, and none is given.",
            f"Add `--direction {names[0]}=1` (its objectives are {', '.join(names)}), or `--direction {AUTO} --adapter "
            "ADAPTER` for the weights of a preference adapter.",
        )
    if (direction == AUTO) != (adapter is not None):
        found = "no adapter is given" if adapter is None else f"the direction is `{direction}`"
        raise AlignError(
            f"`--direction {AUTO}` and `--adapter` go together, and {found}.",
            f"Write `--direction {AUTO} --adapter ADAPTER`, or a direction by hand without an adapter.",
        )
    if adapter is not None:
        check_adapter(names, adapter)
    return direction


def _directions(
    config: DpaRun, control: Control, texts: Texts, direction: str, adapter: Path | None
) -> tuple[Texts, list[Vector]]:
    """The prompts with their direction as a column, and the direction of each."""
    if adapter is None:
        _, vector = asked_direction(config, direction)
        vectors, columns = [vector] * len(texts), dict(texts.columns)
    else:
        vectors, weights = inferred_directions(control, adapter, texts)
        columns = {**texts.columns, "adapter_weights": tuple(weights)}
        beyond = sum(outside(control, config.algorithm.directions, one) > TOLERANCE for one in vectors)
        if beyond:
            log.warning("the directions of %d of %d prompts are beyond those that were trained", beyond, len(texts))
    labels = tuple(control.label(vector) for vector in vectors)
    return replace(texts, columns={**columns, "direction": labels}), vectors


def _chooser(
    config: DpaRun, control: Control, texts: Texts, near: Sequence[Sequence[Vector]], source: Path | None
) -> Callable[[AnswerSource], BestNearby]:
    """Wraps a source of answers so that the best of neighbouring directions is taken.

    Raises:
        AlignError: rewards that cannot score these prompts, or no scale of the run.
    """
    scorer = Scorer(config.rewards)
    scorer.check({"prompts", "completions", *texts.columns})
    scorer.check_rows({**texts.columns, "prompts": texts.prompts})
    scale = stored_scale(config, None if source is None else source.parent.parent)
    if scale is None:
        raise AlignError(
            "neighbours are compared on the common scale of the rewards, which a run of DPA keeps in its folder, and "
            "none is given.",
            "Give the run folder or a checkpoint in it; or set `algorithm.scale: none`.",
        )
    return lambda inner: BestNearby(inner, texts, near, scorer=scorer, control=control, scale=scale)


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


def asked_direction(config: DpaRun, direction: str) -> tuple[Control, Vector]:
    """The direction as its prompt shows it; a warning where training never drew such a one.

    Raises:
        AlignError: one with an unknown objective, or of length 0.
    """
    control = Control.of(config.algorithm, config.reward_names())
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
