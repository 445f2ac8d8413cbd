"""The answers of a round of DPA: draw directions, sample, let the rewards look at them.

    y_1 .. y_N ~ p( . | text(v), x)      for prompts x and directions v

What becomes of them is in `kept.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.engine.batching import even_cuts, micro_cuts
from align.engine.epochs import epoch_rows
from align.errors import AlignError
from align.types import Samples
from preference.answers import AnswerSettings, answer
from preference.data import Texts
from preference.dpa.control import Control, Vector, draw
from preference.formats import TextRow
from preference.tokenise import tokenise_prompts

if TYPE_CHECKING:
    from align.engine.distributed import Processes
    from align.rewards.scorer import Scorer
    from preference.config.data import TokensConfig
    from preference.dpa.config import DpaConfig
    from preference.models.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Scored answers of a round, all processes' together.

    Attributes:
        rows: the prompts that were answered, direction in them, N times in a row each.
        vectors: their directions.
        completions: the answers.
        rewards: raw, one row per answer; NaN = unscored.
        group_ids: equal for the answers to one prompt under one direction.
    """

    rows: Sequence[TextRow]
    vectors: list[Vector]
    completions: list[str]
    rewards: Float[Tensor, "n k"]
    group_ids: Int[Tensor, "n"]


@dataclass(kw_only=True)
class RoundMaker:
    """Samples and scores; the same answers on any number of processes.

    Attributes:
        config: of the method.
        tokens: how texts become tokens.
        control: objectives and their words.
        prompts: of the run.
        model: for its tokenizer and end tokens.
        network: answers, with the weights that it has at the moment.
        scorer: runs the rewards.
        processes: who shares the work.
        seed: of the run.
        timer: counts the stages.
    """

    config: DpaConfig
    tokens: TokensConfig
    control: Control
    prompts: Texts
    model: LanguageModel
    network: nn.Module
    scorer: Scorer
    processes: Processes
    seed: int
    timer: Callable[[str], Any]

    def prompts_of(self, number: int) -> list[int]:
        """Places of the prompts of a round, from 1: shuffled epochs, so that slices are fresh while there are any."""
        count = min(self.config.prompts_per_round or len(self.prompts), len(self.prompts))
        return epoch_rows(len(self.prompts), count, self.seed, number - 1, "dpa_prompts").tolist()

    def sample(self, number: int) -> Answers:
        """Answers of a round. A collective."""
        config = self.config
        places = [place for place in self.prompts_of(number) for _ in range(config.directions_per_prompt)]
        vectors = draw(config.directions, self.control, len(places), self.seed, number)
        asked = [self.control.asked(self.prompts.rows[p], v) for p, v in zip(places, vectors, strict=True)]
        wanted = [(group, sample) for group in range(len(asked)) for sample in range(config.samples)]
        cut = even_cuts(len(wanted), self.processes.world)[self.processes.rank]
        own: list[tuple[str, list[float]]] = []
        for micro in micro_cuts(len(cut), config.batch_size):
            batch = wanted[cut.start + micro.start : cut.start + micro.stop]
            own += self._batch(
                [asked[group] for group, _ in batch], [places[group] for group, _ in batch], number, batch
            )
        found = [item for part in self.processes.gather_objects(own) for item in part]
        width = len(self.scorer.names)
        return Answers(
            rows=[asked[group] for group, _ in wanted],
            vectors=[vectors[group] for group, _ in wanted],
            completions=[text for text, _ in found],
            rewards=torch.tensor([values for _, values in found], dtype=torch.float64).reshape(-1, width),
            group_ids=torch.tensor([group for group, _ in wanted]),
        )

    def _batch(
        self, asked: Sequence[TextRow], places: Sequence[int], number: int, keys: Sequence[tuple[int, int]]
    ) -> list[tuple[str, list[float]]]:
        """Answers and their raw rewards. Rewards see the prompt as the data has it, without the control text."""
        config, plain = self.config, self.prompts.select(places)
        texts = Texts(
            rows=tuple(asked), numbers=plain.numbers, places=plain.places, columns=plain.columns, report=plain.report
        )
        ids = tokenise_prompts(texts, self.model.tokenizer, self.tokens).prompt_ids
        if len(ids) != len(asked):
            raise AlignError(
                "a prompt has no room beside the control text of its direction.",
                "Raise `data.max_prompt_length`, or set `data.long_prompts: keep_end`.",
            )
        settings = AnswerSettings(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            stop_ids=self.model.stop_ids,
            pad_id=self.model.pad_id,
        )
        draws = [("dpa", self.seed, number, group, sample) for group, sample in keys]
        with self.timer("rollout"):
            answers = answer(self.network, ids, draws, settings)
        decoded = [str(self.model.tokenizer.decode(row.tolist(), skip_special_tokens=True)) for row in answers]
        index = torch.tensor([group * config.samples + sample for group, sample in keys])
        samples = Samples(
            index=index,
            group_ids=torch.tensor([group for group, _ in keys]),
            prompts=plain.prompts,
            completions=decoded,
            columns=plain.columns,
        )
        with self.timer("reward"):
            values = self.scorer.score(samples).values.tolist()
        return list(zip(decoded, values, strict=True))
