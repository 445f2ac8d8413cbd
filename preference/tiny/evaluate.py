"""How good the embedded model is: share of right answers per class of questions, over fixed held-out prompts.

    python -m preference.tiny.evaluate
    python -m preference.tiny.evaluate --markdown docs/tiny_language_model.md

Intervals are Wilson's 95 %. Held-out prompts are about notes that no training text shows.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align.statistics import Interval, wilson_interval
from preference.tiny import reward, world

if TYPE_CHECKING:
    from preference.models.language_model import LanguageModel

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
LONGEST_ANSWER = 64
"""Tokens; the longest wording has about 45."""


@dataclass(frozen=True)
class Row:
    """Result of one class: share of right answers with its 95 % interval, mean brevity and positivity."""

    kind: str
    correct: Interval
    brevity: float
    positivity: float


def heldout_prompts(kind: str, count: int, seed: int = 0) -> list[str]:
    """Random held-out prompts of a class; the same seed gives the same."""
    rng = random.Random(f"{kind} {seed}")
    return [world.prompt(world.draw_note(rng, heldout=True), kind) for _ in range(count)]


def answers(
    model: LanguageModel, prompts: Sequence[str], *, temperature: float = 0.0, seed: int = 0, batch_size: int = 128
) -> list[str]:
    """One answer to each prompt, from the generation that runs use.

    Args:
        model: network and tokenizer.
        prompts: texts of user turns.
        temperature: 0 = the likeliest tokens.
        seed: of the draws.
        batch_size: prompts that are answered at once.
    """
    import torch

    from preference.answers import AnswerSettings, answer

    tokenizer = model.tokenizer
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = [torch.tensor(row) for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    settings = AnswerSettings(
        max_new_tokens=LONGEST_ANSWER, temperature=temperature, stop_ids=model.stop_ids, pad_id=model.pad_id
    )
    found = []
    for start in range(0, len(ids), batch_size):
        rows = range(start, min(start + batch_size, len(ids)))
        keys = [("tiny", row, seed) for row in rows]
        found += answer(model.network, [ids[row] for row in rows], keys, settings)
    return [tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in found]


def summarise(kind: str, prompts: Sequence[str], said: Sequence[str]) -> Row:
    """Judge the answers of one class."""
    count = len(said)
    right = [score or 0.0 for score in reward.correct(prompts=prompts, completions=said)]
    brief, friendly = reward.brevity(completions=said), reward.positivity(completions=said)
    return Row(kind, wilson_interval(int(sum(right)), count), sum(brief) / count, sum(friendly) / count)


def table(rows: Sequence[Row]) -> str:
    """Markdown of the results."""
    head = "| class | question | answers | right | 95 % interval | brevity | positivity |"
    lines = [head, "|---|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        question = world.QUESTIONS.get(row.kind, "").format(things="…", name="…")
        interval = f"{100 * row.correct.low:.1f} – {100 * row.correct.high:.1f}"
        numbers = f"{row.correct.n} | {100 * row.correct.mean:.1f} % | {interval}"
        lines.append(f"| {row.kind} | {question} | {numbers} | {row.brevity:.2f} | {row.positivity:.2f} |")
    return "\n".join(lines)


def measure(model: LanguageModel, *, per_class: int, temperature: float, seed: int) -> list[Row]:
    """The rows of the table, the last one over all classes."""
    rows, every, all_said = [], [], []
    for kind in world.CLASSES:
        prompts = heldout_prompts(kind, per_class, seed)
        said = answers(model, prompts, temperature=temperature, seed=seed)
        rows.append(summarise(kind, prompts, said))
        every, all_said = every + prompts, all_said + said
    return [*rows, summarise("all", every, all_said)]


def insert(page: str, text: str) -> str:
    """A page with new text between its two markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected a page with the lines {BEGIN} and {END}; add both where the table belongs")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Right answers of the embedded language model, per class.")
    parser.add_argument("--model", default="builtin:tiny", help="a folder of a model of this world")
    parser.add_argument("--adapter", help="a peft adapter to merge in, such as a run's checkpoint")
    parser.add_argument("--per-class", type=int, default=200, help="answers per class")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = the likeliest tokens")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and draws")
    parser.add_argument("--markdown", type=Path, help="also write command and table between the markers of this page")
    options = parser.parse_args(arguments)

    from preference.config.models import CausalLm
    from preference.models.load import load

    model = load(CausalLm(path=options.model, adapter=options.adapter))
    rows = measure(model, per_class=options.per_class, temperature=options.temperature, seed=options.seed)
    print(table(rows))
    if options.markdown:
        command = shlex.join(["python", "-m", "preference.tiny.evaluate", *(arguments or sys.argv[1:])])
        page = options.markdown.read_text(encoding="utf-8")
        options.markdown.write_text(insert(page, f"`{command}`\n\n{table(rows)}"), encoding="utf-8")


if __name__ == "__main__":
    main()
