"""From settings to the objects of a run of DPA. What a user can get wrong is read before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.rewards.scorer import Scorer
from preference.assemble import computing_dtype
from preference.config import GenerationConfig
from preference.data import Texts, read_prompts
from preference.dpa.check_warm import read_rated
from preference.dpa.config import DpaRun
from preference.dpa.control import Control, Scale, Vector
from preference.dpa.method import SCALE, Dpa, DpaParts
from preference.dpa.read_back import check_read_back
from preference.dpa.rounds import Answers, RoundMaker
from preference.dpa.steering import SteeringEvaluator, as_the_data_has_them, under_directions
from preference.dpa.warm import rated_answers
from preference.evaluate import AnswerEvaluator
from preference.forward import LayoutPlan, SequenceScorer, plan_layout
from preference.layout import Group
from preference.models.load import load_tokenizer
from preference.tokenise import tokenise_prompts

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes
    from preference.models.language_model import LanguageModel
    from preference.tokens import TokenPrompts

ROUNDS = "rounds"
"""Folder of a run that keeps what each round kept."""
SAMPLED_PROMPTS = 32
"""Prompts whose lengths decide on the layout."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads.

    Attributes:
        prompts: of the rounds.
        asked: held-out prompts under all shown directions; None without.
        control: objectives and their words.
        vectors: the shown directions.
        scorer: runs the rewards.
        rated: answers of the warm start; None without.
    """

    prompts: Texts
    asked: TokenPrompts | None
    control: Control
    vectors: list[Vector]
    scorer: Scorer
    rated: Answers | None = None

    def reports(self) -> list[str]:
        """What became of the rows of each source, in lines."""
        lines = [f"{self.prompts.report.source}: {self.prompts.report.summary()}"]
        if self.asked is not None:
            shown = f"{len(self.asked) // len(self.vectors)} prompts under {len(self.vectors)} directions"
            lines.append(f"{self.asked.report.source}: {shown}")
        if self.rated is not None:
            lines.append(f"warm start: {len(self.rated.completions):,} rated answers under their directions")
        return lines


def read_inputs(config: DpaRun) -> Inputs:
    """Read prompts, find rewards, put the shown directions into words; no weights are loaded.

    Raises:
        AlignError: a file, a row, a reward or a direction that cannot be used; says which and what to do.
    """
    scorer = Scorer(config.rewards)
    control = Control.of(config.algorithm, scorer.names)
    vectors = list(dict.fromkeys(control.vector(components) for components in config.shown()))
    prompts, held = training_prompts(config), heldout_prompts(config)
    for texts in (prompts, held):
        if texts is not None:
            scorer.check({"prompts", "completions", *texts.columns})
            scorer.check_rows({**texts.columns, "prompts": texts.prompts})
    tokenizer = load_tokenizer(config.model)
    check_read_back(control, vectors, prompts, tokenizer, config.data)  # says now what cannot be read
    asked = None
    if held is not None:
        check_read_back(control, vectors, held, tokenizer, config.data)
        asked = as_the_data_has_them(
            tokenise_prompts(under_directions(held, control, vectors), tokenizer, config.data), held
        )
    warm = config.algorithm.warm_start
    rated = None if warm is None else rated_answers(config, control, read_rated(config, warm))
    return Inputs(prompts=prompts, asked=asked, control=control, vectors=vectors, scorer=scorer, rated=rated)


def training_prompts(config: DpaRun) -> Texts:
    """The prompts of the rounds."""
    return _read(config, config.data.train, config.data.train_split)


def heldout_prompts(config: DpaRun) -> Texts | None:
    """The prompts of the evaluation, each once; None without."""
    generate = config.evaluation.generate
    source = generate.prompts or config.data.heldout
    if source is None:
        return None
    found = _read(config, source, "train" if generate.prompts else config.data.heldout_split)
    rows = sorted({prompt: row for row, prompt in reversed(list(enumerate(found.prompts)))}.values())
    return found.select(rows if generate.limit is None else rows[: generate.limit])


def _read(config: DpaRun, source: str, split: str) -> Texts:
    data = config.data
    return read_prompts(source, split=split, column=data.prompt, bad_rows=data.bad_rows, as_turns=data.plain_as_chat)


def _under(prompts: Texts, control: Control, vector: Vector) -> Texts:
    return under_directions(prompts, control, [vector])


def layout_of(config: DpaRun, policy: Policy, inputs: Inputs, tokenizer: Any) -> LayoutPlan:
    """The layout of a run, from its first prompts with answers as long as allowed; before the network is wrapped."""
    few = inputs.prompts.select(range(min(SAMPLED_PROMPTS, len(inputs.prompts))))
    tokens = tokenise_prompts(_under(few, inputs.control, inputs.vectors[0]), tokenizer, config.data)
    answer = torch.zeros(config.algorithm.max_new_tokens, dtype=torch.int64)
    answers = (answer, answer) if config.algorithm.loss == "dpo" else (answer,)
    size = config.training.micro_batch_size
    groups = [Group(prompt=prompt, responses=answers) for prompt in tokens.prompt_ids]
    batches = [groups[start : start + size] for start in range(0, len(groups), size)]
    return plan_layout(policy.module, batches, longest=config.data.max_length, wanted=config.training.layout)


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What makes the parts of a run, once the network stands.

    Attributes:
        config: the run's settings.
        model: the loaded model.
        inputs: what the run reads.
        policy: the trained network, prepared.
        scorer: its pass.
        processes: who shares the work.
        timer: counts the stages.
        folder: of the run; None to evaluate only.
    """

    config: DpaRun
    model: LanguageModel
    inputs: Inputs
    policy: Policy
    scorer: SequenceScorer
    processes: Processes
    timer: Callable[[str], Any]
    folder: Path | None

    def method(self) -> Dpa:
        """The method of the run. A collective: the first round is sampled before anything is trained."""
        assert self.folder is not None  # a run has one
        config = self.config
        maker = RoundMaker(
            config=config.algorithm,
            tokens=config.data,
            control=self.inputs.control,
            prompts=self.inputs.prompts,
            model=self.model,
            network=self.policy.module,
            scorer=self.inputs.scorer,
            processes=self.processes,
            seed=config.seed,
            timer=self.timer,
        )
        parts = DpaParts(
            maker=maker,
            scorer=self.scorer,
            policy=self.policy,
            folder=self.folder / ROUNDS,
            per_step=config.data.answers_per_step,
            steps_per_round=config.steps_per_round(),
            warm_steps=config.warm_steps(),
            rated=self.inputs.rated,
            updates=config.training.updates_per_rollout,
            batch_size=config.evaluation.generate.batch_size,
            dtype=computing_dtype(config.model, config.training),
        )
        return Dpa(config.algorithm, parts)

    def evaluator(self) -> SteeringEvaluator | None:
        """The held-out evaluation, None where there is none."""
        if self.inputs.asked is None:
            return None
        generate: GenerationConfig = self.config.evaluation.generate
        answers = AnswerEvaluator(
            self.model,
            self.inputs.asked,
            generate,
            scorer=self.inputs.scorer,
            processes=self.processes,
            timer=self.timer,
        )
        return SteeringEvaluator(
            answers,
            self.inputs.control,
            self.inputs.vectors,
            scale=self._scale,
            reference=self.config.evaluation.reference,
        )

    def _scale(self) -> Scale | None:
        return stored_scale(self.config, self.folder)


def stored_scale(config: DpaRun, folder: Path | None) -> Scale | None:
    """The scale of a run, None before it has one.

    Args:
        config: its settings.
        folder: of the run; None has none.
    """
    if config.algorithm.scale == "none":
        return Scale.none(len(config.rewards))
    path = None if folder is None else folder / ROUNDS / SCALE
    if path is None or not path.is_file():
        return None
    return Scale.from_json(json.loads(path.read_text(encoding="utf-8")))
