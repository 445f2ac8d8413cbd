"""Bradley-Terry and regression as the one loop sees them (`align.engine.algorithm.Algorithm`).

Which rows a step reads is a pure function of (seed, step), so there is no state, and every process knows the labels of
the whole update: denominators are global without asking.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.types import BatchT, LossOutput
from preference.batches import PairBatch
from preference.pair_metrics import reward_metrics
from preference.reward_models.batches import RatedBatch, StoredRatings
from preference.reward_models.config import RewardBtConfig, RewardRegressionConfig
from preference.reward_models.losses import bradley_terry, label_counts, masked_mse, squared_errors
from preference.reward_models.network import last_token_scores, placed
from preference.scores import Sides

if TYPE_CHECKING:
    from align.engine.adapters import Policy
    from preference.sampler import PairSampler
    from preference.stored_pairs import StoredPairs


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The network of a run and how its rows are padded.

    Attributes:
        module: the network.
        through: calls a function of the network and further arguments: `Policy.through`, or plainly.
        pad_id: token that fills rows up.
    """

    module: nn.Module
    through: Callable[..., Any]
    pad_id: int

    @classmethod
    def trained(cls, policy: Policy, pad_id: int) -> Scored:
        """A network that is trained; after `Policy.prepare`."""
        return cls(module=policy.module, through=policy.through, pad_id=pad_id)

    @classmethod
    def frozen(cls, network: nn.Module, pad_id: int) -> Scored:
        """A network that every process holds whole."""
        return cls(module=network, through=lambda function, *given: function(network, *given), pad_id=pad_id)

    def rewards(self, sequences: Sequence[Int[Tensor, "_"]]) -> Float[Tensor, "n k"]:
        """Scores of token sequences in one pass, float32, with gradient where gradients are on."""
        return self.through(last_token_scores, *placed(self.module, sequences, self.pad_id))

    def pairs(self, batch: PairBatch) -> Sides:
        """Rewards of the chosen and the rejected answers, from one pass over both."""
        rows = zip(batch.prompts, batch.chosen, batch.rejected, strict=True)
        both = [torch.cat([prompt, answer]) for prompt, *answers in rows for answer in answers]
        found = self.rewards(both)[:, 0].unflatten(0, (-1, 2))
        return Sides(found[:, 0], found[:, 1])


class RewardMethod(ABC, Generic[BatchT]):
    """What both methods do alike.

    Args:
        network: scores token sequences.
        sampler: which rows a step reads.
    """

    def __init__(self, network: Scored, sampler: PairSampler) -> None:
        self._network, self._sampler = network, sampler
        self._step = self._update = 0

    @abstractmethod
    def collect(self, step: int) -> BatchT:
        """The next rows."""

    @abstractmethod
    def loss(self, micro: BatchT) -> LossOutput:
        """Mean loss of the rows."""

    def prepare_update(self, update: int, rows: BatchT) -> None:
        """Which update of the step it is."""
        self._update = update

    def after_step(self, step: int) -> Mapping[str, float]:
        """Nothing."""
        return {}

    def state_dict(self) -> Mapping[str, Tensor | int | float | str]:
        """Nothing: the rows of a step follow from its number."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor | int | float | str]) -> None:
        """Nothing."""


class RewardBt(RewardMethod[PairBatch]):
    """Bradley-Terry on pairs.

    Args:
        config: the method's settings.
        network: scores token sequences.
        sampler: which pairs a step reads.
        pairs: the data.
        margins: m of each pair of the data; None = 0.
    """

    def __init__(
        self,
        config: RewardBtConfig,
        network: Scored,
        sampler: PairSampler,
        pairs: StoredPairs,
        margins: Float[Tensor, "n"] | None = None,
    ) -> None:
        super().__init__(network, sampler)
        self.config, self._pairs, self._margins = config, pairs, margins

    def collect(self, step: int) -> PairBatch:
        """The next pairs."""
        return self._pairs.of_step(step, self._sampler)

    def losses(self, rewards: Sides, rows: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Loss of each pair.

        Args:
            rewards: of both answers.
            rows: places of the pairs in the data, for their margins.
        """
        margin = 0.0 if self._margins is None else self._margins[rows].to(rewards.chosen.device)
        return bradley_terry(
            *rewards,
            margin=margin,
            label_smoothing=self.config.label_smoothing,
            centre_weight=self.config.centre_weight,
        )

    def loss(self, micro: PairBatch) -> LossOutput:
        """Mean over the pairs."""
        rewards = self._network.pairs(micro)
        found = Sides(*(side.detach() for side in rewards))
        mean = self.losses(rewards, micro.rows).mean()
        return LossOutput(loss=mean, count=len(micro), metrics=reward_metrics(found))


class RewardRegression(RewardMethod[RatedBatch]):
    """One head for each attribute.

    Args:
        config: the method's settings.
        network: scores token sequences.
        sampler: which answers a step reads.
        ratings: the data.
        names: of the attributes.
    """

    def __init__(
        self,
        config: RewardRegressionConfig,
        network: Scored,
        sampler: PairSampler,
        ratings: StoredRatings,
        names: tuple[str, ...],
    ) -> None:
        super().__init__(network, sampler)
        self.config, self._ratings, self._names = config, ratings, names
        self._counts, self._rows = label_counts(ratings.labels), len(ratings)
        self._spread = label_variance(ratings.labels)

    def collect(self, step: int) -> RatedBatch:
        """The next answers."""
        self._step = step
        return self._ratings.of_step(step, self._sampler)

    def prepare_update(self, update: int, rows: RatedBatch) -> None:
        """How many labels of each attribute the update has over all processes."""
        super().prepare_update(update, rows)
        labels = self._ratings.labels_of(self._step, update, self._sampler)
        self._counts, self._rows = label_counts(labels), len(labels)

    def loss(self, micro: RatedBatch) -> LossOutput:
        """The rows' share of the update's mean, times rows of the update / rows of the micro-batch: the engine's mean
        over rows then gives the mean over labels of the whole update, however it is cut."""
        predicted = self._network.rewards(micro.sequences)
        labels = micro.labels.to(predicted.device)
        share = self._rows / len(micro)
        loss = masked_mse(predicted, labels, counts=self._counts, averaging=self.config.averaging) * share
        errors = squared_errors(predicted.detach(), labels).double().sum(dim=0).cpu() * share
        return LossOutput(loss=loss, count=len(micro), metrics=self._metrics(errors))

    def _metrics(self, errors: Float[Tensor, "k"]) -> dict[str, Tensor]:
        """Mean squared error of each attribute in label units, and the share of the labels' variance that is left."""
        known = [place for place, count in enumerate(self._counts.tolist()) if count]
        means = errors / self._counts.clamp(min=1)
        found = {f"mse/{self._names[place]}": means[place] * unit_of(self._ratings, place) ** 2 for place in known}
        return {**found, "unexplained_variance": (means[known] / self._spread[known]).mean()}


def label_variance(labels: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """Population variance of each attribute's labels, which an answer with their mean would have as its error."""
    return torch.stack([column[~column.isnan()].double().var(correction=0) for column in labels.T])


def unit_of(ratings: StoredRatings, place: int) -> float:
    """How many label units a training unit is: step times levels of the scale."""
    scale = ratings.scales[place]
    return scale.step * scale.levels
