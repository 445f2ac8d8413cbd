"""What a saved adapter says about itself: `adapter.json` beside its weights. Torch-free, so that checks can read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from align.errors import AlignError

RECORD = "adapter.json"
WEIGHTS = "adapter.safetensors"
FOLDER = "adapter"
"""Folder of a run that holds its adapter."""
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AdapterRecord:
    """How an adapter was made.

    Attributes:
        objectives: in the order of its outputs.
        encoder: settings of the encoder, with its `kind` (Any: they differ between kinds).
        encoder_name: for people.
        encoder_fingerprint: an encoder with another one gives other vectors.
        embedding_size, hidden_size, temperature: of the network.
        target: settings of the targets that it was taught (Any: numbers and names).
        report: numbers of its held-out rows.
    """

    objectives: tuple[str, ...]
    encoder: Mapping[str, Any]
    encoder_name: str
    encoder_fingerprint: str
    embedding_size: int
    hidden_size: int
    temperature: float
    target: Mapping[str, Any]
    report: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def check_objectives(self, wanted: Sequence[str], where: Path) -> None:
        """Refuse an adapter of other objectives.

        Raises:
            AlignError: says what differs.
        """
        if set(wanted) != set(self.objectives):
            raise AlignError(
                f"the adapter {where} was trained for the objectives {', '.join(self.objectives)}; "
                f"the rewards with a weight are {', '.join(wanted) or 'none'}.",
                "Give exactly these rewards a weight (0 makes one a metric), rename them with `name:`, or train an "
                "adapter for yours (docs/pro_adapter.md).",
            )

    def check_encoder(self, fingerprint: str, name: str, where: Path) -> None:
        """Refuse another encoder than the one whose vectors it was taught with.

        Raises:
            AlignError: says what differs.
        """
        if fingerprint != self.encoder_fingerprint:
            raise AlignError(
                f"the adapter {where} was trained on vectors of {self.encoder_name} ({self.encoder_fingerprint[:12]}); "
                f"the encoder here is {name} ({fingerprint[:12]}).",
                "Use that encoder, in that version; or train an adapter with yours.",
            )

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def find_adapter(path: str | Path) -> Path:
    """The folder of an adapter: the given one, or the `adapter` folder of the run that trained it.

    Raises:
        AlignError: there is none.
    """
    given = Path(path).expanduser()
    found = next((folder for folder in (given, given / FOLDER) if (folder / RECORD).is_file()), None)
    if found is None:
        raise AlignError(
            f"expected an adapter at {given} (a folder with {RECORD}, or a finished run of one), found "
            f"{'a folder without one' if given.is_dir() else 'no such folder'}.",
            "Train one: `align train CONFIG` with `branch: adapter`; docs/pro_adapter.md shows how.",
        )
    return found


def read_record(path: str | Path) -> AdapterRecord:
    """What the adapter at this place says about itself.

    Raises:
        AlignError: there is none, or its record is damaged or of another version.
    """
    file = find_adapter(path) / RECORD
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        record = AdapterRecord(**{**found, "objectives": tuple(found["objectives"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AlignError(f"{file} cannot be read: {error}.", "Train the adapter again, or copy it whole.") from error
    if record.version != VERSION:
        raise AlignError(
            f"{file} is of version {record.version}; this suite reads version {VERSION}.", "Train the adapter again."
        )
    return record
