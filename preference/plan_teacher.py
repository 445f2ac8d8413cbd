"""The part of a plan that is about teachers: which, how large their records are, what they take. Torch-free."""

from __future__ import annotations

from pathlib import Path

from align.errors import AlignError
from align.inspect.plan import Row, Section
from preference.config import PreferenceRun
from preference.config.teacher import AdpaConfig, DckdConfig, TeacherConfig, TwoTeachersConfig
from preference.data import Texts
from preference.formats import readable
from preference.models.locate import locate, read_config
from preference.records_header import CONTENTS, FILE, HELDOUT, bytes_per_token

CHARACTERS = 4
"""Characters of a token, for the guess of how many there are."""


def teacher_sections(config: PreferenceRun, train: Texts | None) -> tuple[Section, ...]:
    """One section for methods with teachers, none for the others.

    Args:
        config: of the run.
        train: its pairs, where they are on this machine.
    """
    algorithm = config.algorithm
    if not isinstance(algorithm, DckdConfig | AdpaConfig):
        return ()
    teacher = algorithm.teacher
    sides, _ = CONTENTS[type(algorithm)]
    there = (Path(teacher.records) / FILE).is_file()
    adapter = f"with the adapter {teacher.adapter}" if teacher.adapter else ""
    rows = [Row(label="aligned teacher", value=teacher.path, note=adapter)]
    models = 1
    if isinstance(teacher, TwoTeachersConfig):
        alone = teacher.reference is None
        models = 2
        note = "the same model, its adapter switched off" if alone else "a second model in memory"
        rows.append(Row(label="reference teacher", value=teacher.reference or teacher.path, note=note))
    rows += [
        Row(
            label="records",
            value=teacher.records,
            note="there already; checked against the pairs when the run starts"
            if there
            else "not there yet: `align teach` with this config computes them",
        ),
        _size(config, algorithm, train),
        *_heldout(config, teacher),
        Row(
            label="teacher passes",
            value=f"{models * len(sides)}",
            note=f"forward, for each pair once in `align teach` ({_answers(algorithm)}); none while training",
        ),
    ]
    return (Section(title="Teachers", rows=tuple(rows)),)


def _heldout(config: PreferenceRun, teacher: TeacherConfig) -> tuple[Row, ...]:
    if config.data.heldout is None:
        return ()
    there = (Path(teacher.records) / HELDOUT / FILE).is_file()
    own = "their loss is the method's own"
    note = f"there already: {own}" if there else f"`align teach` makes them, too; then {own}"
    return (
        Row(label="of held-out pairs", value=HELDOUT, note=note)
        if teacher.heldout
        else Row(label="of held-out pairs", value="none", note="their loss is the likelihood of the chosen answer"),
    )


def _answers(algorithm: DckdConfig | AdpaConfig) -> str:
    if isinstance(algorithm, DckdConfig):
        return "chosen and rejected answers"
    return "the student's answers" if algorithm.student_answers else "the rejected answers in place of the student's"


def _size(config: PreferenceRun, algorithm: DckdConfig | AdpaConfig, train: Texts | None) -> Row:
    a_token = bytes_per_token(algorithm, _vocabulary(config))
    note = f"{algorithm.teacher.top_k} entries in {algorithm.teacher.precision}: {a_token} bytes a token"
    if train is None:
        return Row(label="size", value="unknown", note=f"{note}; the pairs are read by the run")
    wanted = {"chosen": 0, "rejected": 1}
    sides, _ = CONTENTS[type(algorithm)]
    places = [wanted[side] for side in sides]
    characters = sum(len(readable(row.responses[place])) for row in train.rows for place in places)
    tokens = characters // CHARACTERS + len(train) * len(places)
    guess = f"about {tokens:,} tokens at {CHARACTERS} characters each"
    return Row(label="size", value=f"{tokens * a_token / 2**20:,.1f} MiB", note=f"{note}, {guess}")


def _vocabulary(config: PreferenceRun) -> int | None:
    try:
        found = read_config(locate(config.model.path)).get("vocab_size")
    except (AlignError, OSError, ValueError):
        return None
    return int(found) if isinstance(found, int) else None
