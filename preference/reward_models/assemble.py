"""From settings to the objects of a reward model's run. What a user can get wrong is read before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.engine.hooks import Hooks
from align.errors import AlignError, did_you_mean
from align.heldout import write_record
from preference.assemble import record_path
from preference.data import DataReport, read_pairs
from preference.models.load import load_tokenizer
from preference.reward_models.batches import StoredRatings
from preference.reward_models.config import (
    RatingsConfig,
    RewardBtConfig,
    RewardModelRun,
    RewardPairsConfig,
    RewardRegressionConfig,
)
from preference.reward_models.data import as_texts, heldout_ratings, training_ratings
from preference.reward_models.evaluate import Evaluator, PairAccuracy, RatingErrors, Shared
from preference.reward_models.files import Card
from preference.reward_models.losses import Averaging
from preference.reward_models.methods import RewardBt, RewardMethod, RewardRegression, Scored
from preference.reward_models.report import write_reward_report
from preference.sampler import PairSampler
from preference.stored_pairs import StoredPairs, annotator_rates
from preference.tokenise import tokenise_pairs, tokenise_responses
from preference.tokens import TokenPairs

if TYPE_CHECKING:
    from align.engine.distributed import Processes
    from align.engine.run import Run
    from preference.ratings import RatedTexts


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads.

    Attributes:
        train: to train on.
        heldout: to evaluate on; None where there is nothing.
        card: what the model's scores will mean.
    """

    train: StoredPairs | StoredRatings
    heldout: StoredPairs | StoredRatings | None
    card: Card

    def reports(self) -> list[str]:
        """What became of the rows of each source, in lines."""
        parts: list[DataReport] = [part.data.report for part in (self.train, self.heldout) if part is not None]
        return [f"{part.source}: {part.summary()}" for part in parts]


def read_inputs(config: RewardModelRun) -> Inputs:
    """Read, check and tokenise the data; no weights are loaded.

    Raises:
        AlignError: a file, a row, an attribute or a rating that cannot be used; says which and what to do.
    """
    if isinstance(config.data, RatingsConfig):
        return _ratings(config, config.data)
    return _pairs(config, config.data)


def _pairs(config: RewardModelRun, data: RewardPairsConfig) -> Inputs:
    tokenizer = load_tokenizer(config.model)
    texts = read_pairs(data.train, data)
    held = None if data.heldout is None else read_pairs(data.heldout, data, split=data.heldout_split)

    def stored(tokens: TokenPairs) -> StoredPairs:
        return StoredPairs(data=tokens, rates=annotator_rates(tokens))

    heldout = None if held is None else tokenise_pairs(held, tokenizer, data)
    if heldout is not None and config.evaluation.rows is not None:
        heldout = heldout.select(range(min(config.evaluation.rows, len(heldout))))
    return Inputs(
        train=stored(tokenise_pairs(texts, tokenizer, data)),
        heldout=None if heldout is None else stored(heldout),
        card=_card(config, is_chat=texts.rows[0].is_chat),
    )


def _ratings(config: RewardModelRun, data: RatingsConfig) -> Inputs:
    tokenizer = load_tokenizer(config.model)
    scales = tuple(data.attributes.values())

    def stored(rated: RatedTexts, limit: int | None = None) -> StoredRatings:
        tokens = tokenise_responses(as_texts(rated, as_turns=data.plain_as_chat), tokenizer, data)
        tokens = tokens if limit is None else tokens.select(range(min(limit, len(tokens))))
        return StoredRatings.of(tokens, rated, scales)

    train, held = training_ratings(data), heldout_ratings(data)
    return Inputs(
        train=stored(train),
        heldout=None if held is None else stored(held, config.evaluation.rows),
        card=_card(config, is_chat=data.plain_as_chat or train.rows[0].is_chat),
    )


def _card(config: RewardModelRun, *, is_chat: bool) -> Card:
    scales = config.data.attributes if isinstance(config.data, RatingsConfig) else {}
    return Card(kind=config.algorithm.kind, names=config.names, scales=scales, tokens=config.data, is_chat=is_chat)


def sampler_of(config: RewardModelRun, rows: int, processes: Processes | None = None) -> PairSampler:
    """Which rows a step reads."""
    return PairSampler(
        pairs=rows,
        per_step=config.rows_per_step,
        seed=config.seed,
        updates=config.training.updates_per_rollout,
        rank=0 if processes is None else processes.rank,
        world=1 if processes is None else processes.world,
    )


def margins_of(pairs: StoredPairs, column: str | None) -> Float[Tensor, "n"] | None:
    """The margin of each pair from a column of the data; None without.

    Raises:
        AlignError: no such column, or an entry that is no finite number from 0.
    """
    if column is None:
        return None
    data = pairs.data
    if column not in data.columns:
        raise AlignError(
            f"{data.report.source} has no column `{column}`.{did_you_mean(column, data.columns)}",
            "Correct `algorithm.margin_column`, or remove it.",
        )
    for row, value in zip(data.rows, data.columns[column], strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise AlignError(
                f"{data.report.source}, row {row}: `{column}` is a margin, a number from 0; found {value!r:.40}.",
                "Correct the row, or remove `algorithm.margin_column`.",
            )
    return torch.tensor(data.columns[column], dtype=torch.float32)


Maker = Callable[[Any, Scored, PairSampler, Any, tuple[str, ...]], RewardMethod[Any]]
"""Settings, network, sampler, data, names -> method (Any: each method has its own settings and data)."""


def _bradley_terry(config: RewardBtConfig, network: Scored, sampler: PairSampler, data: StoredPairs, _: Any) -> Any:
    return RewardBt(config, network, sampler, data, margins_of(data, config.margin_column))


METHODS: Mapping[type, Maker] = {RewardBtConfig: _bradley_terry, RewardRegressionConfig: RewardRegression}
"""Settings -> what makes the method."""


def method_of(
    config: RewardModelRun, network: Scored, data: StoredPairs | StoredRatings, sampler: PairSampler
) -> RewardMethod[Any]:
    """The method of a run on some data."""
    return METHODS[type(config.algorithm)](config.algorithm, network, sampler, data, config.names)


def evaluator_of(config: RewardModelRun, network: Scored, inputs: Inputs, processes: Processes) -> Evaluator | None:
    """The held-out evaluation; None where nothing is held out."""
    held = inputs.heldout
    if held is None:
        return None
    work = Shared(processes=processes, batch_size=config.evaluation.batch_size)
    if isinstance(held, StoredRatings):
        averaging: Averaging = getattr(config.algorithm, "averaging", "micro")

        def predict(rows: Tensor) -> Float[Tensor, "b k"]:
            return network.rewards([held.sequence(place) for place in rows.tolist()])

        return RatingErrors(predict=predict, ratings=held, names=config.names, work=work, averaging=averaging)
    method: Any = method_of(config, network, held, PairSampler(pairs=len(held), per_step=1, seed=0))
    return PairAccuracy(method=method, network=network, pairs=held, work=work, bins=config.evaluation.bins)


def make_hooks(config: RewardModelRun, evaluator: Evaluator | None, run: Run) -> Hooks:
    """Evaluation between steps, with the averaged weights if there are any; nothing where it is off."""
    if evaluator is None:
        return Hooks()

    def evaluate(step: int) -> Mapping[str, float]:
        with run.averaged_weights() as weights:
            found = evaluator()
        record = found.record(step, weights)
        if run.processes.is_main:
            write_record(record_path(run.folder.path, step), record)
            write_reward_report(run.folder.path, found, step, weights)
        return record.metrics()

    return Hooks(evaluate=evaluate, evaluate_every=config.evaluation.every)
