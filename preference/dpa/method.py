"""Directional Preference Alignment, as the one loop sees it. Page: docs/dpa.md.

    round 0:  -log p(y* | text(v), x) on rated answers (warm.py), if there are any
    round t:  sample and keep (rounds.py), then  steps / rounds  steps of
              -log p(y* | text(v), x)                             loss: sft, as published
              DPO on (y*, y-) against p at the round's start      loss: dpo (ours)
              -softmax(s / tau)_i log p(y_i | text(v), x)         loss: rwr (ours), all answers
              clipped surrogate of the advantages of s            loss: grpo (ours), all answers

Wang et al., "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment with
Multi-Objective Rewards", arXiv:2402.18571. Their training code was not released; numbers of samples, rounds and the
learning rate are ours where the paper's were not found.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.errors import AlignError
from align.shaping.steering import Scale
from align.types import LossOutput
from preference.config.data import PairsConfig, TokensConfig
from preference.dpa.kept import kept_pairs, read_rows, replayed, scores_of, summary, write_rows
from preference.dpa.losses import LOSSES, OpenedRound, RoundLoss, Stored
from preference.pair_method import PairMethod, PairParts
from preference.reference import ReferenceCache, ReferenceTable, complete
from preference.sampler import PairSampler

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from preference.dpa.config import DpaConfig
    from preference.dpa.rounds import Answers, RoundMaker
    from preference.forward import SequenceScorer

log = logging.getLogger(__name__)

SCALE = "scale.json"
WARM = 0
"""Number of the round of the warm start."""


@dataclass(frozen=True, kw_only=True)
class DpaParts:
    """What the method works with.

    Attributes:
        maker: samples and scores.
        scorer: the pass of the network.
        policy: the trained network.
        folder: where the rounds lie.
        per_step: kept answers of a step, over all processes.
        steps_per_round: steps of a round.
        warm_steps: steps before the first round.
        rated: answers of the warm start; None without.
        updates: optimiser updates of a step.
        batch_size: pairs of a pass that asks the reference.
        dtype: what the network computes in.
    """

    maker: RoundMaker
    scorer: SequenceScorer
    policy: Policy
    folder: Path
    per_step: int
    steps_per_round: int
    warm_steps: int = 0
    rated: Answers | None = None
    updates: int = 1
    batch_size: int = 8
    dtype: torch.dtype = torch.float32


class Dpa:
    """The method.

    Args:
        config: its settings.
        parts: what it works with.
    """

    def __init__(self, config: DpaConfig, parts: DpaParts) -> None:
        self.config = config
        self._parts = parts
        self._maker = parts.maker
        self._round = -1
        self._inner: PairMethod | None = None
        self._found: dict[str, float] = {}
        self.scale = self._scale()

    @property
    def inner(self) -> PairMethod:
        """The method of the round."""
        assert self._inner is not None  # `collect` comes first
        return self._inner

    def collect(self, step: int) -> Any:  # Any: pairs or single answers
        """The next kept answers; the first step of a round samples them."""
        number, local = self._place(step)
        if number != self._round:
            self._open(number)
        return self.inner.collect(local)

    def prepare_update(self, update: int, rows: Any) -> None:
        """See the round's method."""
        self.inner.prepare_update(update, rows)

    def loss(self, micro: Any) -> LossOutput:
        """See the round's method."""
        return self.inner.loss(micro)

    def after_step(self, step: int) -> Mapping[str, float]:
        """What the round kept, once, and its number."""
        found, self._found = self._found, {}
        return {**self.inner.after_step(step), **found, "dpa/round": float(self._round)}

    def state_dict(self) -> Mapping[str, Tensor | int | float | str]:
        """Nothing: rounds are files, and which pairs a step reads follows from its number."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | str]) -> None:
        """Nothing."""

    def path_of(self, number: int) -> Path:
        """File of a round."""
        return self._parts.folder / f"round_{number:02d}.jsonl"

    def _place(self, step: int) -> tuple[int, int]:
        """Round of a step, and its number in it, from 1; round 0 is the warm start."""
        warm = self._parts.warm_steps
        if step <= warm:
            return WARM, step
        number, local = divmod(step - 1 - warm, self._parts.steps_per_round)
        return number + 1, local + 1

    def _scale(self) -> Scale:
        """Of the base model's answers to the prompts of the first round, sampled before anything is trained. Without a
        warm start they are that round."""
        maker = self._maker
        if self.config.scale == "none":
            return Scale.none(len(maker.scorer.names))
        path = self._parts.folder / SCALE
        if not maker.processes.from_main(path.is_file()):
            answers = self._answers(1)
            scale = Scale.of(answers.rewards)
            self._warn_of_constants(answers)
            if not self._parts.warm_steps:
                self._keep(1, answers, scale)
            if maker.processes.is_main:
                path.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps({"names": maker.scorer.names, **scale.to_json()}, indent=1)
                path.write_text(text, encoding="utf-8")
            maker.processes.barrier()
        stored = maker.processes.from_main(path.read_text() if maker.processes.is_main else None)
        return Scale.from_json(json.loads(str(stored)))

    def _warn_of_constants(self, answers: Answers) -> None:
        """Say which reward tells no answers apart: along it nothing is kept."""
        for name, column in zip(self._maker.scorer.names, answers.rewards.unbind(dim=1), strict=True):
            scored = column[~column.isnan()]
            if len(scored) > 1 and bool((scored == scored[0]).all()) and self._maker.processes.is_main:
                log.warning(
                    "the reward `%s` is %g for all %d answers of the first round: a direction towards it alone keeps "
                    "nothing",
                    name,
                    float(scored[0]),
                    len(scored),
                )

    def _answers(self, number: int) -> Answers:
        """Sample and score those of a round. A collective."""
        policy = self._parts.policy
        policy.gather()  # processes make different numbers of passes
        try:
            answers = self._maker.sample(number)
        finally:
            policy.reshard()
        counts = (self._maker.control.mixes != 0).any(dim=0)
        for name, column, counted in zip(self._maker.scorer.names, answers.rewards.unbind(dim=1), counts, strict=True):
            if counted and bool(column.isnan().all()):
                raise AlignError(
                    f"the reward `{name}` has scored none of the {len(column)} answers of round {number}, so nothing "
                    "can be kept along it.",
                    "Repair the reward, or leave it out of `rewards` or `algorithm.objectives`.",
                )
        return answers

    def _keep(self, number: int, answers: Answers, scale: Scale) -> None:
        """Make the file of a round. A collective."""
        control, main = self._maker.control, self._maker.processes.is_main
        scores = scores_of(answers, control, scale)
        pairs = kept_pairs(answers, scores, min_margin=self.config.min_margin)
        rows = self._loss(number).keep(answers, control, scores, pairs, self.config)
        share = self.config.replayed()
        if number > 1 and share > 0:
            rows += replayed(read_rows(self.path_of(number - 1)), share, self._maker.seed, number)
        if main:
            write_rows(self.path_of(number), rows)
        self._maker.processes.barrier()
        self._found = summary(answers, pairs, scores)

    def _make(self, number: int) -> None:
        if number == WARM:
            assert self._parts.rated is not None  # there are no steps without
            self._keep(number, self._parts.rated, Scale.of(self._parts.rated.rewards))
        else:
            self._keep(number, self._answers(number), self.scale)

    def _loss(self, number: int) -> RoundLoss:
        """What a round is trained by: rated answers are imitated, whatever comes afterwards."""
        return LOSSES["sft" if number == WARM else self.config.loss]

    def _open(self, number: int) -> None:
        """Read a round, made now if it is not there. A collective."""
        if not self._maker.processes.from_main(self.path_of(number).is_file()):
            self._make(number)
        path, maker = self.path_of(number), self._maker
        count = len(read_rows(path))
        if count < self._parts.per_step:
            raise AlignError(
                f"round {number} kept {count} answers, and a step reads {self._parts.per_step} different ones.",
                "Lower `data.answers_per_step` or `algorithm.min_margin`, or raise `algorithm.prompts_per_round` or "
                "`algorithm.samples`: where all answers to a prompt score alike, none is kept.",
            )
        settings = replace(PairsConfig(), **token_settings(maker.tokens))
        sampler = PairSampler(
            pairs=count,
            per_step=self._parts.per_step,
            seed=maker.seed + number,
            updates=self._parts.updates,
            rank=maker.processes.rank,
            world=maker.processes.world,
        )
        opened = OpenedRound(
            path=path,
            config=self.config,
            settings=settings,
            tokenizer=maker.model.tokenizer,
            parts=lambda stored: self._pair_parts(stored, sampler),
            at_start=lambda stored: self._at_start(stored, number),
            updates=self._parts.steps_per_round * self._parts.updates,
        )
        self._inner = self._loss(number).open(opened)
        self._round = number

    def _pair_parts(self, stored: Stored, sampler: PairSampler) -> PairParts:
        sampler = replace(sampler, pairs=len(stored))
        parts = self._parts
        return PairParts(pairs=stored, sampler=sampler, scorer=parts.scorer, policy=parts.policy, dtype=parts.dtype)

    def _at_start(self, stored: Stored, number: int) -> ReferenceTable:
        """What the policy says of the rows at the round's start. A file keeps it, for a run that goes on within the
        round."""
        parts, processes = self._parts, self._maker.processes
        cache = ReferenceCache(parts.folder, {"round": str(number), "data": stored.data.fingerprint()})
        known = processes.from_main(cache.load() if processes.is_main else None)
        assert known is not None  # the main process has sent it
        parts.policy.gather()
        try:
            rows = torch.arange(len(stored))
            shared = {"scorer": parts.scorer, "processes": processes, "batch_size": parts.batch_size}
            table = complete(known, stored.groups, rows, **shared)
        finally:
            parts.policy.reshard()
        if processes.is_main and len(table.rows) > len(known.rows):
            cache.save(table)
        return table


def token_settings(tokens: TokensConfig) -> dict[str, Any]:
    """The settings of tokens alone, of settings that have more."""
    return {field.name: getattr(tokens, field.name) for field in fields(TokensConfig)}
