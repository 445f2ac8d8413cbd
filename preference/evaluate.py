"""Held-out evaluation: the same pairs, and answers to the same prompts, at every step of every run.

Pairs are scored by the pass that trains; answers are sampled with keys of their own. So any two evaluations are paired
row by row, whatever seed, batch size or number of processes a run has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from align.engine.batching import even_cuts, micro_cuts
from align.heldout import ALL, EvaluatedRow, HeldoutRows, known, user_groups
from align.types import Samples
from preference.answers import AnswerSettings, answer
from preference.losses import PairLosses
from preference.pair_report import PairTable, figures, pair_rewards
from preference.reference import stored_log_probs
from preference.scores import SequenceScores, sides

if TYPE_CHECKING:
    from align.engine.distributed import Processes
    from align.rewards.scorer import Scorer
    from preference.config import GenerationConfig
    from preference.evaluate_responses import ResponseEvaluator
    from preference.models.language_model import LanguageModel
    from preference.pair_method import PairMethod
    from preference.stored_pairs import StoredPairs
    from preference.tokens import TokenPrompts

Timer = Callable[[str], Any]
"""`timer(stage)` is a context manager."""


def shared_table(
    score: Callable[[Tensor], Float[Tensor, "b c"]], count: int, width: int, *, processes: Processes, batch_size: int
) -> Float[Tensor, "n c"]:
    """Numbers of all rows, each scored by one process; on every process. A collective.

    Args:
        score: places of some rows -> their numbers, float64 on the CPU.
        count: rows.
        width: numbers of a row.
        processes: who shares the work.
        batch_size: rows of a pass.
    """
    cut = even_cuts(count, processes.world)[processes.rank]
    own = torch.arange(cut.start, cut.stop)
    parts = [score(own[micro.start : micro.stop]) for micro in micro_cuts(len(own), batch_size)]
    return processes.gather_rows(torch.cat(parts) if parts else torch.zeros(0, width, dtype=torch.float64))


class PairEvaluator:
    """Scores held-out pairs.

    Args:
        method: whose loss and rewards are reported; it brings the pass.
        pairs: held-out pairs with their reference.
        processes: who shares the work.
        batch_size: pairs of a pass.
        group_column: column that says whom a pair stands for.
    """

    def __init__(
        self,
        method: PairMethod,
        pairs: StoredPairs,
        *,
        processes: Processes,
        batch_size: int,
        group_column: str | None = None,
    ) -> None:
        self._method, self._pairs = method, pairs
        self._processes, self._size = processes, batch_size
        self._user_groups = user_groups(pairs.data.columns, group_column, len(pairs.data))

    @torch.no_grad()
    def table(self) -> PairTable:
        """The numbers of all pairs, on every process. A collective."""
        count, width = len(self._pairs), len(PairTable.COLUMNS)
        values = shared_table(self._score, count, width, processes=self._processes, batch_size=self._size)
        return PairTable(values=values, rates=self._pairs.rates)

    def rows(self, table: PairTable) -> list[EvaluatedRow]:
        """One row per pair."""
        data = self._pairs.data
        groups = data.columns.get("class") or [None] * len(data)
        return [
            EvaluatedRow(
                number=number,
                prompt=prompt,
                group=ALL if group is None else str(group),
                seed=0,
                rewards=rewards,
                user_group=self._user_groups[number],
            )
            for number, (prompt, group, rewards) in enumerate(
                zip(data.prompts, groups, pair_rewards(table), strict=True)
            )
        ]

    def figures(self, table: PairTable) -> dict[str, float]:
        """Numbers of all pairs together."""
        return figures(table, beta=self._method.penalty())

    def _score(self, rows: Tensor) -> Float[Tensor, "b c"]:
        batch = self._pairs.batch(rows, rows)
        scores = self._method.scorer.without_gradient(batch.groups(), ("entropy", *self._method.extras))
        reference = scores.like(stored_log_probs(batch))
        asked = reference if self._method.config.reads_reference() else None
        return _columns(scores, reference, self._method.judge(batch, scores, asked)).cpu()


def _columns(scores: SequenceScores, reference: SequenceScores, found: PairLosses) -> Float[Tensor, "b c"]:
    """In the order of `PairTable.COLUMNS`."""
    entropy = scores.table(scores.extras["entropy"]).sum(dim=1)
    parts = [
        found.losses,
        found.chosen_rewards,
        found.rejected_rewards,
        *sides(scores.sums()),
        *sides(scores.lengths),
        *sides(reference.sums()),
        sum(sides(entropy)),
    ]
    return torch.stack([part.double() for part in parts], dim=1)


class AnswerEvaluator:
    """Answers held-out prompts and scores the answers.

    Args:
        model: for its tokenizer and end tokens.
        prompts: what is answered.
        config: how.
        scorer: runs the rewards.
        processes: who shares the work.
        timer: counts the stages.
        group_column: column that says whom a prompt stands for.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: TokenPrompts,
        config: GenerationConfig,
        *,
        scorer: Scorer,
        processes: Processes,
        timer: Timer,
        group_column: str | None = None,
    ) -> None:
        self._model, self._prompts, self._config = model, prompts, config
        self._user_groups = user_groups(prompts.columns, group_column, len(prompts))
        self._scorer, self._processes, self._timer = scorer, processes, timer
        self._settings = AnswerSettings(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            stop_ids=model.stop_ids,
            pad_id=model.pad_id,
        )

    def rows(self, network: torch.nn.Module, first: int) -> list[EvaluatedRow]:
        """An answer for each prompt and seed: all prompts with seed 0, then with seed 1, ... A collective.

        Args:
            network: the model with the weights to evaluate in it.
            first: number of the first row.
        """
        wanted = [(row, seed) for seed in range(self._config.seeds) for row in range(len(self._prompts))]
        cut = even_cuts(len(wanted), self._processes.world)[self._processes.rank]
        found: list[EvaluatedRow] = []
        for micro in micro_cuts(len(cut), self._config.batch_size):
            numbers = range(cut.start + micro.start, cut.start + micro.stop)
            found += self._answer(network, numbers, [wanted[number] for number in numbers], first)
        return list(chain.from_iterable(self._processes.gather_objects(found)))

    def _answer(
        self, network: torch.nn.Module, numbers: Iterable[int], wanted: Sequence[tuple[int, int]], first: int
    ) -> list[EvaluatedRow]:
        chosen = self._prompts.select([row for row, _ in wanted])
        keys = [("evaluation", row, seed) for row, seed in wanted]
        with self._timer("rollout"):
            ids = answer(network, chosen.prompt_ids, keys, self._settings)
        tokenizer = self._model.tokenizer
        texts = [str(tokenizer.decode(row.tolist(), skip_special_tokens=True)) for row in ids]
        index = torch.tensor([row for row, _ in wanted])
        samples = Samples(
            index=index, group_ids=index, prompts=chosen.prompts, completions=texts, columns=chosen.columns
        )
        with self._timer("reward"):
            table = self._scorer.score(samples)
        groups = chosen.columns.get("class") or [None] * len(chosen)
        return [
            EvaluatedRow(
                number=first + number,
                prompt=chosen.prompts[place],
                group=ALL if groups[place] is None else str(groups[place]),
                seed=wanted[place][1],
                rewards={name: known(value) for name, value in zip(table.names, values, strict=True)},
                completion=texts[place],
                user_group=self._user_groups[wanted[place][0]],
            )
            for place, (number, values) in enumerate(zip(numbers, table.values.tolist(), strict=True))
        ]


class Evaluator:
    """Pairs, answers, or both.

    Args:
        pairs: scores held-out pairs, or single answers; None where there are none.
        answers: samples and scores answers; None where that is off.
    """

    def __init__(self, pairs: PairEvaluator | ResponseEvaluator | None, answers: AnswerEvaluator | None) -> None:
        self._pairs, self._answers = pairs, answers

    def evaluate(self, step: int, network: torch.nn.Module, weights: str) -> HeldoutRows:
        """Everything that is held out. A collective.

        Args:
            step: finished training steps, for the record.
            network: the model with the weights to evaluate in it.
            weights: their name, "ema" or "raw".
        """
        rows: list[EvaluatedRow] = []
        numbers: dict[str, float] = {}
        if self._pairs is not None:
            table: Any = self._pairs.table()  # Any: each evaluator reads its own
            rows, numbers = self._pairs.rows(table), self._pairs.figures(table)
        if self._answers is not None:
            rows = rows + self._answers.rows(network, len(rows))
        return HeldoutRows(step=step, weights=weights, rows=rows, figures=numbers)
