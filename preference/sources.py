"""The rows that a run trains on and is held to: pairs, or single answers where its method reads no more. Torch-free."""

from __future__ import annotations

from preference.config import PreferenceRun
from preference.config.algorithms import SINGLE_ANSWERS
from preference.data import Texts, read_pairs, read_responses
from preference.tables import open_table


def reads_single_answers(config: PreferenceRun) -> bool:
    """Whether a row of the run is a prompt with one answer."""
    return isinstance(config.algorithm, SINGLE_ANSWERS)


def training_texts(config: PreferenceRun) -> Texts:
    """The rows of `data.train`.

    Raises:
        AlignError: they cannot be read; says where and why.
    """
    read = read_responses if reads_single_answers(config) else read_pairs
    return read(config.data.train, config.data)


def heldout_texts(config: PreferenceRun) -> Texts | None:
    """The rows of `data.heldout`; None without. Single answers only where the method reads such and finds no pairs.

    Raises:
        AlignError: they cannot be read; says where and why.
    """
    data = config.data
    if data.heldout is None:
        return None
    if reads_single_answers(config):
        table = open_table(data.heldout, split=data.heldout_split, subset=data.subset, revision=data.revision)
        if not {data.chosen, data.rejected} <= set(table.columns):
            return read_responses(data.heldout, data, split=data.heldout_split)
    return read_pairs(data.heldout, data, split=data.heldout_split)


def are_pairs(texts: Texts) -> bool:
    """Whether the rows have two answers."""
    return len(texts.rows[0].responses) == 2
