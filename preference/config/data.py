"""Where the texts are, what their columns are called, how they become tokens. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from align.config.numbers import PositiveInt
from align.config.paths import Folders, Located, find_file

ENDINGS = (".jsonl", ".json", ".parquet", ".csv")
"""Files that can be read."""


def find_data(text: str, folders: Folders) -> str:
    """A file or folder of rows: absolute where there is one or it can be nothing else; otherwise a hub id."""
    path = Path(text).expanduser()
    is_path = path.is_absolute() or text.startswith(("./", "../", "~")) or path.suffix.lower() in ENDINGS
    there = bool(text.strip()) and any((folder / path).exists() for folder in folders)
    return find_file(text, folders) if is_path or there else text


DataPath = Annotated[str, Located(find_data)]
"""A text field that names rows: a file, a folder, or a hub id."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """How rows of text become tokens. The chat template is applied once, to the whole conversation."""

    max_length: PositiveInt = 1024
    """Tokens of prompt and answer together; an answer is cut at its end, and then has no end token."""
    max_prompt_length: PositiveInt = 512
    """Tokens of the prompt; cut alike for both answers."""
    long_prompts: Literal["keep_end", "keep_start", "skip", "refuse"] = "keep_end"
    """A longer prompt: keep its end (and the begin token), keep its start, leave the row out, or stop and say which."""
    append_eos: Literal["plain", "always", "never"] = "plain"
    """Put the tokenizer's EOS behind answers that do not end with it: plain texts, templated ones too, or none."""
    strip_after_eos: bool = False
    """Leave out what a template writes behind the last end token of an answer (the newline of ChatML)."""
    plain_as_chat: bool = False
    """Take plain texts for turns of user and assistant, and apply the chat template to them."""
    template_options: dict[str, Any] = field(default_factory=dict)
    """Arguments for the chat template, such as `enable_thinking` (Any: the template's own); a row's own come on top."""
    bad_rows: Literal["error", "skip"] = "error"
    """A row that cannot be used: stop and say which, or leave it out and count it."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig(TokensConfig):
    """Prompts with a chosen and a rejected answer, in any of TRL's formats.

    A source is a .jsonl, .json, .parquet or .csv file, a folder written by `datasets.Dataset.save_to_disk`, a hub id
    (`owner/name`), or `builtin:tiny/train` and `builtin:tiny/heldout`.
    """

    train: DataPath = "builtin:tiny/train"
    """Pairs to train on; for `sft` also single answers (`prompt` and `completion`, or `messages`, or `text`)."""
    heldout: DataPath | None = "builtin:tiny/heldout"
    """Pairs that are only evaluated; `null` goes without."""
    train_split: str = "train"
    """Split of `train`, where the source has several."""
    heldout_split: str = "test"
    """Split of `heldout`, where the source has several."""
    subset: str | None = None
    """Name of the subset (configuration) of a hub id that has several."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    pairs_per_step: PositiveInt = 32
    """Pairs of a step, over all processes."""
    prompt: str = "prompt"
    """Column of the prompt; not needed where chosen and rejected are whole conversations."""
    chosen: str = "chosen"
    """Column of the preferred answer."""
    rejected: str = "rejected"
    """Column of the other one."""
    shared_words: bool = False
    """Plain texts without a prompt: take the words with which both begin for it (TRL's implicit prompts, by words)."""
