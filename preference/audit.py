"""Answers of the base model, each scored twice: what `align audit` looks at. No formula."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.config.checks import reward_name
from align.engine.batching import micro_cuts
from align.engine.command import processes_of
from align.errors import AlignError
from align.heldout import ALL
from align.inspect.audit.twice import is_cached, scored_twice
from align.rewards.scorer import Scorer
from align.types import Samples
from preference.assemble import prompts_to_answer
from preference.config import CandidatesConfig, GenerationConfig, PreferenceRun
from preference.data import Texts
from preference.generate import LocalAnswers, check_sampling
from preference.generate_http import ServerAnswers
from preference.models import load_causal_lm
from preference.sources import heldout_texts

if TYPE_CHECKING:
    from align.config.shared import RewardConfig
    from preference.generate import AnswerSource

SAMPLES = "samples.jsonl"


def draw_scored(config: PreferenceRun, *, samples: int, prompts: int, output: Path) -> Path:
    """Sample answers of the base model and score each twice.

    Args:
        config: the settings. `candidates` says how answers are sampled and what scores them; without rewards there,
            `evaluation.rewards` do.
        samples: answers to each prompt.
        prompts: the first so many of `candidates.prompts`, `evaluation.generate.prompts` or the held-out rows.
        output: folder for the rows.

    Returns:
        The file of rows.

    Raises:
        AlignError: no reward, no prompt, or settings under which all answers to a prompt are the same.
    """
    generate = config.evaluation.generate
    settings = config.candidates or CandidatesConfig(
        max_new_tokens=(generate or GenerationConfig()).max_new_tokens, temperature=1.0, top_p=1.0
    )
    texts = _prompts(config, settings, generate, prompts)
    return draw_answers(config, settings, config.scoring()[0], texts, texts, samples=samples, output=output)


def _prompts(config: PreferenceRun, settings: CandidatesConfig, generate: GenerationConfig | None, limit: int) -> Texts:
    source = settings.prompts or (None if generate is None else generate.prompts)
    heldout = None if source is not None else heldout_texts(config)
    if source is None and heldout is None:
        raise AlignError(
            "there are no prompts to answer: `data.heldout` is null, and no others are named.",
            "Name them in `candidates.prompts` or `evaluation.generate.prompts`.",
        )
    return prompts_to_answer(config, GenerationConfig(prompts=source, limit=limit), heldout)


def draw_answers(
    config: PreferenceRun,
    settings: CandidatesConfig,
    rewards: Sequence[RewardConfig],
    prompts: Texts,
    asked: Texts,
    *,
    samples: int,
    output: Path,
) -> Path:
    """Sample, score twice, write.

    Args:
        config: the model, its tokens, the seed.
        settings: how answers are sampled.
        rewards: what scores them.
        prompts: as the data has them, which is how rewards see them.
        asked: as the model is asked, row by row the same.
        samples: answers to each prompt.
        output: folder for the rows.

    Raises:
        AlignError: no reward, one that cannot score these prompts, several processes.
    """
    if not rewards:
        raise AlignError(
            "the config names no reward, so there is nothing to audit.",
            "Set `candidates.rewards` (what pairs are made by) or `evaluation.rewards`.",
        )
    check_sampling(settings, range(samples), None)
    scorer = Scorer(rewards)
    scorer.check({"prompts", "completions", *prompts.columns})
    scorer.check_rows({**prompts.columns, "prompts": prompts.prompts})
    with processes_of(config.training) as (accelerator, processes):
        if processes.world > 1:
            raise AlignError("`align audit` draws in one process.", "Start it without a launcher.")
        source: AnswerSource
        if settings.server is not None:
            source = ServerAnswers(settings.server, settings, asked, config.seed)
        else:
            model = load_causal_lm(config.model, accelerator.device)
            source = LocalAnswers(model, model.network, config.model.path, config, settings, asked)
        cached = [reward_name(one) for one in rewards if is_cached(one)]
        return write_rows(scored_answers(source, prompts, scorer, samples, cached), output)


def scored_answers(
    source: AnswerSource, prompts: Texts, scorer: Scorer, samples: int, cached: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """One row of JSON for each answer, all answers to a prompt one after the other.

    Args:
        source: answers, by position of the prompt.
        prompts: what rewards see.
        scorer: runs the rewards.
        samples: answers to each prompt.
        cached: rewards whose second scoring is none.
    """
    wanted = [(place, number) for place in source.usable() for number in range(samples)]
    classes = prompts.columns.get("class") or [None] * len(prompts)
    for cut in micro_cuts(len(wanted), source.at_once):
        batch = [wanted[i] for i in cut]
        answers = source.answers(batch)
        rows = prompts.select([place for place, _ in batch])
        index = torch.tensor([place * samples + number for place, number in batch])
        everything = Samples(
            index=index,
            group_ids=index // samples,
            prompts=rows.prompts,
            completions=[answer.text for answer in answers],
            columns=rows.columns,
        )
        scores = scored_twice(scorer, everything, cached)
        for (place, number), row, answer, scored in zip(batch, rows.rows, answers, scores, strict=True):
            yield {
                "prompt": row.prompt if isinstance(row.prompt, str) else list(row.prompt),
                "class": ALL if classes[place] is None else str(classes[place]),
                "seed": number,
                "completion": answer.text,
                **scored,
            }


def write_rows(found: Iterator[dict[str, Any]], folder: Path) -> Path:
    """`samples.jsonl` in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SAMPLES
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in found)
    return path
