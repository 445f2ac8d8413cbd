"""From settings to the objects of a run. Whatever a user can get wrong is read here, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.engine.batching import micro_cuts
from align.engine.hooks import Hooks
from align.heldout import write_record
from align.rewards.scorer import Scorer
from preference.adpa_method import Adpa
from preference.arithmetic import precomputes
from preference.config import (
    AdpaConfig,
    CausalLm,
    DckdConfig,
    DpoConfig,
    GenerationConfig,
    PreferenceRun,
    SftConfig,
    SimpoConfig,
)
from preference.data import Texts, read_prompts
from preference.dckd_method import Dckd
from preference.dpo import Dpo
from preference.evaluate import AnswerEvaluator, Evaluator, PairEvaluator
from preference.evaluate_responses import ResponseEvaluator
from preference.forward import LayoutPlan, SequenceScorer, plan_layout
from preference.models.load import load_tokenizer
from preference.pair_method import PairMethod, PairParts
from preference.reference import ReferenceCache, complete
from preference.sampler import PairSampler
from preference.sft import Sft
from preference.simpo import Simpo
from preference.sources import are_pairs, heldout_texts, training_texts
from preference.stored_pairs import StoredPairs, StoredResponses, annotator_rates
from preference.student_answers import as_states
from preference.taught_records import heldout_records
from preference.tokenise import tokenise_pairs, tokenise_prompts, tokenise_responses
from preference.tokens import TokenPairs

if TYPE_CHECKING:
    from align.config.shared import TrainingConfig
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes
    from align.engine.run import Run
    from preference.models.language_model import LanguageModel
    from preference.records import TeacherRecords
    from preference.tokens import TokenPrompts, TokenResponses

METHODS: Mapping[type, type[PairMethod]] = {
    DpoConfig: Dpo,
    SimpoConfig: Simpo,
    DckdConfig: Dckd,
    AdpaConfig: Adpa,
    SftConfig: Sft,
}
"""Settings -> method."""
SAMPLED_BATCHES = 8
"""Micro-batches whose layouts are compared."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads.

    Attributes:
        pairs: to train on; single answers where the method reads no more.
        heldout: to evaluate on; None where there are none.
        prompts: to answer; None where no answers are sampled.
        scorer: scores those answers.
        heldout_records: what the teachers say of the held-out pairs; None where there is nothing.
    """

    pairs: TokenPairs | TokenResponses
    heldout: TokenPairs | TokenResponses | None
    prompts: TokenPrompts | None
    scorer: Scorer
    heldout_records: TeacherRecords | None = None

    def reports(self) -> list[str]:
        """What became of the rows of each source, in lines."""
        parts = [self.pairs, *(part for part in (self.heldout, self.prompts) if part is not None)]
        return [f"{part.report.source}: {part.report.summary()}" for part in parts]


def read_inputs(config: PreferenceRun) -> Inputs:
    """Read and tokenise pairs and prompts, and find rewards; no weights are loaded.

    Raises:
        AlignError: a file, a row or a reward that cannot be used; says which and what to do.
    """
    scorer = Scorer(config.evaluation.rewards)
    train, heldout = training_texts(config), heldout_texts(config)
    generate = config.evaluation.generate
    asked = None if generate is None else prompts_to_answer(config, generate, heldout)
    if asked is not None:
        scorer.check({"prompts", "completions", *asked.columns})
        scorer.check_rows({**asked.columns, "prompts": asked.prompts})
    tokenizer = load_tokenizer(config.model)
    heldout_ids = None if heldout is None else _tokenised(heldout, tokenizer, config)
    records = heldout_records(config, heldout_ids)  # of all of them, whatever part is evaluated
    if heldout_ids is not None and config.evaluation.pairs is not None:
        heldout_ids = heldout_ids.select(range(min(config.evaluation.pairs, len(heldout_ids))))
    return Inputs(
        pairs=_training(train, tokenizer, config),
        heldout=heldout_ids,
        prompts=None if asked is None else tokenise_prompts(asked, tokenizer, config.data),
        scorer=scorer,
        heldout_records=records,
    )


def _tokenised(texts: Texts, tokenizer: Any, config: PreferenceRun) -> TokenPairs | TokenResponses:
    return (tokenise_pairs if are_pairs(texts) else tokenise_responses)(texts, tokenizer, config.data)


def _training(texts: Texts, tokenizer: Any, config: PreferenceRun) -> TokenPairs | TokenResponses:
    """The rows to train on; where the method reads the student's own answers, with these."""
    tokens = _tokenised(texts, tokenizer, config)
    return as_states(tokens, config, tokenizer) if isinstance(tokens, TokenPairs) else tokens


def _stored(data: TokenPairs | TokenResponses) -> StoredPairs | StoredResponses:
    if isinstance(data, TokenPairs):
        return StoredPairs(data=data, rates=annotator_rates(data))
    return StoredResponses(data=data)


def prompts_to_answer(config: PreferenceRun, generate: GenerationConfig, heldout: Texts | None) -> Texts:
    """The prompts to answer, each once."""
    if generate.prompts is not None:
        found = read_prompts(generate.prompts, bad_rows=config.data.bad_rows, as_turns=config.data.plain_as_chat)
    else:
        assert heldout is not None  # the checks have seen to it
        found = heldout
    first = {prompt: row for row, prompt in reversed(list(enumerate(found.prompts)))}
    rows = sorted(first.values())
    return found.select(rows if generate.limit is None else rows[: generate.limit])


def keeps_copy(config: PreferenceRun, pairs: int) -> bool:
    """Whether a second copy of all weights is held: it was asked for, and nothing else gives the reference."""
    live = config.algorithm.reads_reference() and not precomputes(config, pairs)
    return live and config.model.lora is None


def layout_of(config: PreferenceRun, policy: Policy, inputs: Inputs) -> LayoutPlan:
    """The layout of a run, from its first pairs; before the network is wrapped."""
    pairs, size = _stored(inputs.pairs), config.training.micro_batch_size
    rows = _sampler(config, len(pairs))(1).rows
    cuts = micro_cuts(len(rows), size)[:SAMPLED_BATCHES]
    longest = max(part.longest() for part in (inputs.pairs, inputs.heldout) if part is not None)
    batches = [pairs.groups(rows[cut.start : cut.stop]) for cut in cuts]
    return plan_layout(policy.module, batches, longest=longest, wanted=config.training.layout)


def _sampler(config: PreferenceRun, pairs: int, processes: Processes | None = None) -> PairSampler:
    return PairSampler(
        pairs=pairs,
        per_step=config.data.pairs_per_step,
        seed=config.seed,
        updates=config.training.updates_per_rollout,
        rank=0 if processes is None else processes.rank,
        world=1 if processes is None else processes.world,
    )


def computing_dtype(model: CausalLm, training: TrainingConfig) -> torch.dtype:
    """What the network computes in: autocast's precision, or that of its weights (trained ones are float32)."""
    usual = torch.float32 if model.lora is None else getattr(torch, model.dtype)
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(training.mixed_precision, usual)


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What makes the parts of a run from its settings, once the network stands.

    Attributes:
        config: the run's settings.
        model: the loaded model.
        inputs: what the run reads.
        policy: the trained network, prepared.
        scorer: its pass.
        processes: who shares the work.
        timer: counts the stages.
        cache: folder for stored references; None = in memory only.
        records: of `training_records`; None to evaluate, or where the method has none.
    """

    config: PreferenceRun
    model: LanguageModel
    inputs: Inputs
    policy: Policy
    scorer: SequenceScorer
    processes: Processes
    timer: Callable[[str], Any]
    cache: Path | None
    records: TeacherRecords | None = None

    def method(self) -> PairMethod:
        """The method of the run. A collective; the network is as it was before training."""
        data, sampler = self.inputs.pairs, _sampler(self.config, len(self.inputs.pairs), self.processes)
        pairs = _stored(data)
        if isinstance(pairs, StoredPairs) and precomputes(self.config, len(data)):
            pairs = self.with_reference(pairs, sampler.read_in(range(1, self.config.training.steps + 1)))
        return self._method(pairs, sampler, self.records)

    def evaluator(self) -> Evaluator | None:
        """The held-out evaluation, None where there is none. A collective, as `method`.

        Held-out pairs are always compared with the model from before training, whatever the method reads.
        """
        heldout, prompts, evaluation = self.inputs.heldout, self.inputs.prompts, self.config.evaluation
        answers = None
        ranking = None if heldout is None else self._heldout(_stored(heldout))
        if prompts is not None and evaluation.generate is not None:
            answers = AnswerEvaluator(
                self.model,
                prompts,
                evaluation.generate,
                scorer=self.inputs.scorer,
                processes=self.processes,
                timer=self.timer,
                group_column=evaluation.group_column,
            )
        return None if ranking is None and answers is None else Evaluator(ranking, answers)

    def _heldout(self, stored: StoredPairs | StoredResponses) -> PairEvaluator | ResponseEvaluator:
        evaluation = self.config.evaluation
        size, column = evaluation.batch_size, evaluation.group_column
        if isinstance(stored, StoredResponses):
            return ResponseEvaluator(
                self.scorer, stored, processes=self.processes, batch_size=size, group_column=column
            )
        pairs = self.with_reference(stored, torch.arange(len(stored)))
        sampler = PairSampler(pairs=len(pairs), per_step=1, seed=0)
        method = self._method(pairs, sampler, self.inputs.heldout_records)
        return PairEvaluator(method, pairs, processes=self.processes, batch_size=size, group_column=column)

    def with_reference(self, pairs: StoredPairs, rows: torch.Tensor) -> StoredPairs:
        """The pairs with the reference's numbers for these rows, from the cache or computed now."""
        config, identity = self.config, self.policy.identity
        key = {
            "data": pairs.data.fingerprint(),
            "weights": identity["weights"],
            "dtype": f"{config.model.dtype}, quantised {config.model.quantization}",
            "autocast": config.training.mixed_precision,
            "attention": config.model.attention,
            "layout": self.scorer.plan.kind,
        }
        cache = ReferenceCache(self.cache, key)
        known = self.processes.from_main(cache.load() if self.processes.is_main else None)
        assert known is not None  # the main process has sent it
        self.policy.gather()  # processes run different numbers of passes
        try:
            table = complete(
                known,
                pairs.groups,
                rows,
                scorer=self.scorer,
                processes=self.processes,
                batch_size=config.evaluation.batch_size,
            )
        finally:
            self.policy.reshard()
        if self.processes.is_main and len(table.rows) > len(known.rows):
            cache.save(table)
        return replace(pairs, reference=table)

    def _method(
        self, pairs: StoredPairs | StoredResponses, sampler: PairSampler, records: TeacherRecords | None
    ) -> PairMethod:
        parts = PairParts(
            pairs=pairs,
            sampler=sampler,
            scorer=self.scorer,
            policy=self.policy,
            dtype=computing_dtype(self.config.model, self.config.training),
            records=records,
        )
        return METHODS[type(self.config.algorithm)](self.config.algorithm, parts)


def make_hooks(config: PreferenceRun, evaluator: Evaluator | None, run: Run) -> Hooks:
    """Evaluation between steps, with the averaged weights if there are any; nothing where it is off."""
    if evaluator is None:
        return Hooks()

    def evaluate(step: int) -> Mapping[str, float]:
        with run.averaged_weights() as weights:
            found = evaluator.evaluate(step, run.policy.module, weights)
        if run.processes.is_main:
            write_record(record_path(run.folder.path, step), found)
        return found.metrics()

    return Hooks(evaluate=evaluate, evaluate_every=config.evaluation.every)


def record_path(folder: Path, step: int) -> Path:
    """`evaluations/step_XXXXXX.json`."""
    from align.engine.folder import step_name

    return folder / "evaluations" / f"{step_name(step)}.json"
