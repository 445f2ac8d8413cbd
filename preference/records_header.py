"""What a folder of teacher records says about itself, and what has to agree before it is used. Torch-free.

    records.json          everything that the numbers depend on; written before the first of them
    part_*.safetensors    records of some pairs each, see `preference.records`

Nothing in it depends on layouts, batches or processes: those change numbers by rounding only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from align.errors import AlignError
from preference.config.teacher import AdpaConfig, DckdConfig, TeacherConfig, TwoTeachersConfig
from preference.models.locate import locate

FILE = "records.json"
HELDOUT = "heldout"
"""Folder within that of the training pairs' records, for those of the held-out pairs."""
FORMAT = 1
BLOCK = 1 << 20
"""Bytes of a file that are read for its stamp in one place."""

CONTENTS: dict[type, tuple[tuple[str, ...], str]] = {
    DckdConfig: (("chosen", "rejected"), "log_probs"),
    AdpaConfig: (("rejected",), "ratios"),
}
"""Settings of a method -> which answers of a pair have records (the student's stands for the rejected one), kind."""

MEANINGS = {
    "format": "the files' format",
    "data": "the training pairs (their tokens, lengths, template, or the student's answers)",
    "tokenizer": "tokenizer, chat template or lengths",
    "pairs": "the number of pairs",
    "sides": "which answers are in it",
    "kind": "what is kept of a token",
    "top_k": "`teacher.top_k`",
    "support": "`teacher.support`",
    "vocabulary": "the size of the vocabulary",
    "precision": "`teacher.precision`",
    "weights": "the aligned teacher's weights",
    "reference_weights": "the reference teacher's weights",
    "files": "the teachers' weight files",
}
"""What it means if a field differs."""


@dataclass(frozen=True, kw_only=True)
class RecordsHeader:
    """Everything that records depend on; fingerprints are hashes.

    Attributes:
        data: of all token ids, tokenizer, template and lengths.
        tokenizer: of tokenizer, template and lengths.
        pairs: how many.
        sides: answers of a pair that have records, in this order: `chosen`, `rejected` (or the student's in its place).
        kind: `log_probs` (DCKD) or `ratios` (ADPA).
        top_k: entries that were asked for.
        support: whose most likely entries these are.
        vocabulary: ids that both models and the tokenizer know; the others were cut off before the softmax.
        precision: of the stored numbers.
        weights: of the aligned teacher.
        reference_weights: of the reference teacher, None without.
        teacher: what the configuration called the teachers; for people.
        files: stamp of the teachers' weight files; None where they are not on this machine.
        format: of the files.
    """

    data: str
    tokenizer: str
    pairs: int
    sides: tuple[str, ...]
    kind: str
    top_k: int
    support: str
    vocabulary: int | None = None
    precision: str
    weights: str | None = None
    reference_weights: str | None = None
    teacher: str = ""
    files: str | None = None
    format: int = FORMAT

    def differences(self, wanted: RecordsHeader) -> list[str]:
        """Where these records are not what is wanted, one line each; what one of the two does not know is passed over.

        Args:
            wanted: of the run that is to use them.
        """
        found: list[str] = []
        for name, meaning in MEANINGS.items():
            mine, theirs = getattr(self, name), getattr(wanted, name)
            if mine is not None and theirs is not None and mine != theirs:
                found.append(f"{name} ({meaning}): the records have {_shown(mine)}, this run has {_shown(theirs)}")
        return found


def wanted_header(algorithm: DckdConfig | AdpaConfig, *, data: str, tokenizer: str, pairs: int) -> RecordsHeader:
    """The header that the records of a run have; what only the teachers' weights can tell is None.

    Args:
        algorithm: its settings.
        data: fingerprint of the tokenised pairs, the student's answers among them.
        tokenizer: fingerprint of tokenizer, template and lengths.
        pairs: how many.
    """
    teacher = algorithm.teacher
    sides, kind = CONTENTS[type(algorithm)]
    reference = teacher.reference if isinstance(teacher, TwoTeachersConfig) else None
    names = (teacher.path, teacher.adapter and f"adapter {teacher.adapter}", reference and f"reference {reference}")
    return RecordsHeader(
        data=data,
        tokenizer=tokenizer,
        pairs=pairs,
        sides=sides,
        kind=kind,
        top_k=teacher.top_k,
        support=_support(teacher),
        precision=teacher.precision,
        teacher=", ".join(name for name in names if name),
        files=stamp_of(teacher.path, teacher.adapter, reference),
    )


def bytes_per_token(algorithm: DckdConfig | AdpaConfig, vocabulary: int | None) -> int:
    """Bytes that the record of a token takes.

    Args:
        algorithm: settings of the method.
        vocabulary: its size; None = unknown, which counts as above 65,536.
    """
    teacher = algorithm.teacher
    entries = teacher.top_k if vocabulary is None else min(teacher.top_k, vocabulary)
    entries *= 2 if _support(teacher) == "union" else 1
    number = 2 if vocabulary is not None and vocabulary <= SMALL else 4
    value = {"float16": 2, "float32": 4}[teacher.precision]
    rest = 4 if CONTENTS[type(algorithm)][1] == "log_probs" else 0
    return entries * (number + value) + rest + 4  # 4: the token itself


SMALL = 1 << 16
"""Ids below it are stored in two bytes."""


def _support(teacher: TeacherConfig) -> str:
    return teacher.support if isinstance(teacher, TwoTeachersConfig) else "top_k"


def read_header(folder: Path) -> RecordsHeader | None:
    """The header of a folder, None where there is none.

    Raises:
        AlignError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))  # Any: JSON
        known = {item.name: values[item.name] for item in fields(RecordsHeader)}
        return RecordsHeader(**{**known, "sides": tuple(known["sides"])})
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise AlignError(
            f"{path} is not the header of teacher records: {type(error).__name__}: {error}.",
            "Delete the folder and run `align teach` again.",
        ) from error


def write_header(folder: Path, header: RecordsHeader) -> None:
    """Write it, in one go."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{FILE}.{os.getpid()}.tmp"
    draft.write_text(json.dumps(asdict(header), indent=1) + "\n", encoding="utf-8")
    os.replace(draft, folder / FILE)


def check_header(folder: Path, found: RecordsHeader, wanted: RecordsHeader) -> None:
    """Refuse records of something else.

    Raises:
        AlignError: names every field that differs, what was expected, what was found.
    """
    differences = found.differences(wanted)
    if differences:
        raise AlignError(
            "\n".join([f"the teacher records in {folder} do not belong to this run:", *differences]),
            "Run `align teach` with this configuration and another `algorithm.teacher.records`, or delete that folder "
            "first.",
        )


def stamp_of(path: str, *more: str | None) -> str | None:
    """A hash of sizes and of some blocks of weight files: it sees a teacher that was trained on, in no time.

    Args:
        path: a model as `model.path` names it.
        more: folders of adapters and further models.

    Returns:
        None if one of them is not on this machine.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in (path, *(entry for entry in more if entry is not None)):
        files = _weight_files(name)
        if not files:
            return None
        for file in files:
            digest.update(f"{file.name} {file.stat().st_size}".encode())
            for block in _blocks(file):
                digest.update(block)
    return digest.hexdigest()


def _weight_files(name: str) -> list[Path]:
    folder = Path(name).expanduser()
    if not (folder / "adapter_model.safetensors").is_file():
        try:
            source = locate(name)
        except AlignError:
            return []
        if source.folder is None:
            return []
        if source.gguf:
            return [source.folder / source.gguf]
        folder = source.folder
    return sorted(folder.glob("*.safetensors"))


def _blocks(file: Path) -> Iterator[bytes]:
    """The first and the last megabyte, and six between them."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        for part in range(8):
            stream.seek(max(0, size - BLOCK) * part // 7)
            yield stream.read(BLOCK)


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
