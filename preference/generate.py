"""Answers to prompts for pairs: each of its own seed, shared over processes, resumed where it was stopped.

An answer is keyed by (seed, prompt row, candidate). Neither the batch nor the number of processes decides it; only
the last bits of the logits depend on how many rows a batch pads, which can turn a draw that is a hair's breadth away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from align.engine.batching import even_cuts, micro_cuts
from align.engine.command import processes_of
from align.engine.saving import find_checkpoint, load_weights
from align.errors import AlignError
from preference.answers import AnswerSettings, answer
from preference.candidates import OWN, SCORED, Answer, CandidateParts, check_new
from preference.config import CandidatesConfig, PreferenceRun
from preference.data import DataReport, Texts, read_prompts
from preference.formats import TextRow, as_chat
from preference.generate_http import ServerAnswers
from preference.models import load_causal_lm
from preference.tokenise import tokenise_prompts

if TYPE_CHECKING:
    import torch

    from align.engine.distributed import Processes
    from preference.models.language_model import LanguageModel

Wanted = tuple[int, int]
"""Position of a prompt, and number of the candidate."""


class AnswerSource(Protocol):
    """Whoever answers."""

    at_once: int
    """Answers that are worth asking for together."""

    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on, as JSON: the model and how it is sampled."""
        ...

    def usable(self) -> Sequence[int]:
        """Positions of the prompts that can be answered."""
        ...

    def answers(self, wanted: Sequence[Wanted]) -> list[Answer]:
        """One answer for each."""
        ...


def generate(
    config: PreferenceRun,
    *,
    checkpoint: Path | None = None,
    prompts: Sequence[str] = (),
    prompts_file: Path | None = None,
    seeds: Sequence[int] | None = None,
    output: Path | None = None,
) -> Path:
    """Sample candidates for prompts into a file, or go on with a half-made one.

    Args:
        config: the settings; `candidates` says how, `model` with what.
        checkpoint: checkpoint or run folder; None samples from the base model.
        prompts: texts, in place of a file.
        prompts_file: a file of prompts; None takes `candidates.prompts`.
        seeds: numbers of the candidates of each prompt; None takes 0 .. `candidates.per_prompt` - 1.
        output: the file, .jsonl or .parquet; None = `candidates.jsonl`.

    Raises:
        AlignError: no prompt, prompts that cannot be used, a file that is there already, a server that does not answer.
    """
    settings = config.candidates or CandidatesConfig()
    output = Path("candidates.jsonl") if output is None else output
    numbers = tuple(range(settings.per_prompt)) if seeds is None else tuple(seeds)
    check_sampling(settings, numbers, checkpoint)
    check_new(output)
    source = None if checkpoint is None else find_checkpoint(checkpoint)
    texts = given_prompts(config, settings, prompts, prompts_file)
    with processes_of(config.training) as (accelerator, processes):
        answers: AnswerSource
        if settings.server is not None:
            answers = ServerAnswers(settings.server, settings, texts, config.seed)
        else:
            model = load_causal_lm(config.model, accelerator.device)
            network, label = weights_of(config, model, source)
            answers = LocalAnswers(model, network, label, config, settings, texts)
        write_candidates(texts, answers, numbers, seed=config.seed, output=output, processes=processes)
    return output


def write_candidates(
    texts: Texts, source: AnswerSource, numbers: Sequence[int], *, seed: int, output: Path, processes: Processes
) -> None:
    """All candidates of all prompts into one file. A collective.

    Args:
        texts: prompts.
        source: answers them.
        numbers: of the candidates of each prompt.
        seed: of the run.
        output: the file.
        processes: who shares the work.
    """
    identity = source.identity()
    content = json.dumps([[row.prompt for row in texts.rows], {k: list(v) for k, v in texts.columns.items()}])
    prompts = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    parts = CandidateParts(
        output, {**identity, "seed": seed, "candidates": list(numbers), "prompts": prompts}, processes
    )
    done = parts.begin()
    missing = [place for place in source.usable() if texts.numbers[place] not in done]
    cut = even_cuts(len(missing), processes.world)[processes.rank]
    for chunk in micro_cuts(len(cut), max(1, source.at_once // len(numbers))):
        places = [missing[cut.start + i] for i in chunk]
        found = iter(source.answers([(place, number) for place in places for number in numbers]))
        rows = [(place, [next(found) for _ in numbers]) for place in places]
        parts.append(_row(texts, place, answers, identity, seed) for place, answers in rows)
    parts.merge()


def _row(texts: Texts, place: int, answers: Sequence[Answer], identity: Mapping[str, Any], seed: int) -> dict[str, Any]:
    prompt = texts.rows[place].prompt
    return {
        "row": texts.numbers[place],
        "prompt": prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt],
        "candidates": [answer.text for answer in answers],
        "finish": [answer.finish for answer in answers],
        "tokens": [answer.tokens for answer in answers],
        "model": identity["model"],
        "sampling": identity["sampling"],
        "seed": seed,
        **{name: values[place] for name, values in texts.columns.items()},
    }


class LocalAnswers:
    """Answers of a model in this process.

    Args:
        model: for its tokenizer and end tokens.
        network: it, with the weights to sample from.
        label: what the weights are called.
        config: of the run: lengths and template of prompts, seed.
        settings: how answers are sampled.
        texts: prompts.
    """

    def __init__(
        self,
        model: LanguageModel,
        network: torch.nn.Module,
        label: str,
        config: PreferenceRun,
        settings: CandidatesConfig,
        texts: Texts,
    ) -> None:
        self._model, self._network, self._label, self._seed = model, network, label, config.seed
        self._given, self.at_once = settings, settings.batch_size
        self._tokens = tokenise_prompts(texts, model.tokenizer, config.data)
        place = {number: i for i, number in enumerate(texts.numbers)}
        self._row_of = {place[number]: row for row, number in enumerate(self._tokens.rows)}
        self._settings = AnswerSettings(
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop_ids=model.stop_ids,
            pad_id=model.pad_id,
        )

    def identity(self) -> Mapping[str, Any]:
        return {"model": self._label, "sampling": sampling(self._given), "tokens": self._tokens.fingerprint()}

    def usable(self) -> Sequence[int]:
        return sorted(self._row_of)

    def answers(self, wanted: Sequence[Wanted]) -> list[Answer]:
        found: list[Answer] = []
        for micro in micro_cuts(len(wanted), self.at_once):
            found += self._batch([wanted[i] for i in micro])
        return found

    def _batch(self, wanted: Sequence[Wanted]) -> list[Answer]:
        rows = [self._row_of[place] for place, _ in wanted]
        keys = [
            ("candidates", self._seed, self._tokens.rows[row], number)
            for row, (_, number) in zip(rows, wanted, strict=True)
        ]
        ids = answer(self._network, [self._tokens.prompt_ids[row] for row in rows], keys, self._settings)
        stops = set(self._settings.stop_ids)
        return [
            Answer(
                text=str(self._model.tokenizer.decode(row.tolist(), skip_special_tokens=True)),
                finish="stop" if len(row) and int(row[-1]) in stops else "length",
                tokens=len(row),
            )
            for row in ids
        ]


def sampling(settings: CandidatesConfig) -> dict[str, Any]:
    """How answers are drawn, for the file."""
    return {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
    }


def check_sampling(settings: CandidatesConfig, numbers: Sequence[int], checkpoint: Path | None) -> None:
    """Refuse what would make no answers, equal answers, or those of other weights.

    Raises:
        AlignError: says which setting.
    """
    if not numbers:
        raise AlignError("there are no seeds, so there is nothing to answer.", "Give at least one.")
    if settings.temperature == 0 and len(numbers) > 1:
        raise AlignError(
            f"at temperature 0 the likeliest token is taken each time: {len(numbers)} candidates would be equal.",
            "Set `candidates.temperature` to, say, 0.8, or ask for one candidate with `--seeds 1`.",
        )
    if settings.server is not None and checkpoint is not None:
        raise AlignError(
            f"answers come from the server {settings.server.url}, so the weights of {checkpoint} would not be used.",
            "Serve these weights and give the config, or set `candidates.server=null`.",
        )


def given_prompts(config: PreferenceRun, settings: CandidatesConfig, given: Sequence[str], file: Path | None) -> Texts:
    """The prompts, as turns where they are to go through a template."""
    as_turns = config.data.plain_as_chat or (settings.server is not None and settings.server.api == "chat")
    source = str(file) if file is not None else settings.prompts
    if given and file is not None:
        raise AlignError("prompts are given both by `--prompt` and by `--prompts`.", "Give one of them.")
    if given:
        rows = [TextRow(prompt=text) for text in given]
        return Texts(
            rows=tuple(as_chat(row) if as_turns else row for row in rows),
            numbers=tuple(range(len(rows))),
            places=tuple(f"--prompt number {number + 1}" for number in range(len(rows))),
            columns={},
            report=DataReport(source="--prompt", read=len(rows), used=len(rows)),
        )
    if source is None:
        raise AlignError("there is no prompt.", "Give `--prompt TEXT`, a file by `--prompts`, or `candidates.prompts`.")
    texts = read_prompts(source, bad_rows=config.data.bad_rows, as_turns=as_turns)
    taken = [name for name in texts.columns if name in (*OWN, *SCORED)]
    if taken:
        raise AlignError(
            f"{source}: column `{taken[0]}` has the name of a field of candidates.", "Rename or remove the column."
        )
    return texts


def weights_of(config: PreferenceRun, model: LanguageModel, source: Path | None) -> tuple[torch.nn.Module, str]:
    """The network to sample from, and a name for its weights."""
    if source is None:
        return model.network, config.model.path
    policy = model.policy(config.model.lora, seed=config.seed)
    load_weights(source, policy)
    return policy.module, str(source)
