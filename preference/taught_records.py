"""The teacher records that a run reads: of its training pairs, and of its held-out pairs if there are any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from preference.config import AdpaConfig, DckdConfig, PreferenceRun
from preference.records import TeacherRecords
from preference.records_header import HELDOUT, read_header, wanted_header

if TYPE_CHECKING:
    from preference.tokens import TokenPairs, TokenResponses


def training_records(config: PreferenceRun, pairs: TokenPairs | TokenResponses) -> TeacherRecords | None:
    """What the teachers say of the pairs, None for methods that have none.

    Raises:
        AlignError: there are no records, they are not complete, or they belong to something else.
    """
    algorithm = config.algorithm
    if not isinstance(algorithm, DckdConfig | AdpaConfig):
        return None
    return _open(Path(algorithm.teacher.records), algorithm, pairs)


def heldout_records(config: PreferenceRun, pairs: TokenPairs | TokenResponses | None) -> TeacherRecords | None:
    """The same of all held-out pairs; None where `align teach` has not recorded any.

    Raises:
        AlignError: they are not complete, or they belong to something else.
    """
    algorithm = config.algorithm
    if not isinstance(algorithm, DckdConfig | AdpaConfig) or pairs is None or not algorithm.teacher.heldout:
        return None
    folder = Path(algorithm.teacher.records) / HELDOUT
    return None if read_header(folder) is None else _open(folder, algorithm, pairs)


def _open(folder: Path, algorithm: DckdConfig | AdpaConfig, pairs: TokenPairs | TokenResponses) -> TeacherRecords:
    wanted = wanted_header(algorithm, data=pairs.fingerprint(), tokenizer=pairs.tokenizer, pairs=len(pairs))
    return TeacherRecords.open(folder, wanted)
