"""Teachers as miniatures, and the records of random pairs in a folder."""

import copy
from dataclasses import replace

from align.engine.distributed import Processes
from preference.config import AdpaConfig, TeacherConfig, TwoTeachersConfig
from preference.records import TeacherRecords
from preference.records_header import wanted_header, write_header
from preference.teach import RecordWriter
from preference.teachers import Teachers

from .miniatures import VOCABULARY
from .pair_data import float32


def teachers(*, two, seed=7):
    """An aligned teacher and, with `two`, one that differs from it a little."""
    aligned = float32(seed=seed)
    reference = None
    if two:
        reference = copy.deepcopy(aligned)
        for number, weight in enumerate(reference.parameters()):
            weight.data.mul_(1 + 0.05 * (number % 3))
    return Teachers(
        aligned=aligned,
        reference=reference,
        vocabulary=VOCABULARY,
        weights="aligned",
        reference_weights="reference" if two else None,
    )


def records_of(folder, data, algorithm, models):
    """Compute and open the records of a method, in float32."""
    header = header_of(data, algorithm)
    write_header(folder, header)
    RecordWriter(folder, header, algorithm.teacher, models, data).run(Processes(), lambda line: None)
    return TeacherRecords.open(folder, header)


def header_of(data, algorithm):
    """What a run with this data and these settings expects."""
    return wanted_header(algorithm, data=data.fingerprint(), tokenizer=data.tokenizer, pairs=len(data))


def exact(algorithm, **changes):
    """Settings with records in float32, in folders of any name."""
    two = isinstance(algorithm, AdpaConfig)
    teacher = (TwoTeachersConfig if two else TeacherConfig)(path="aligned", precision="float32", **changes)
    return replace(algorithm, teacher=teacher)
