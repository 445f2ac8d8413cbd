"""OCR reward: is the text that the prompt asks for in the picture?

The recogniser is rapidocr (PP-OCR models by onnxruntime). The models are files of its wheel: nothing is downloaded.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from align.errors import AlignError
from align.rewards.network import Lazy
from align.rewards.options import whole
from align.rewards.outcome import Unscored

QUOTED = re.compile(r'"([^"]*)"')
INSTALL = "pip install 'align-suite[ocr]'"
Detection = tuple[str, float]
"""What was read and the engine's confidence in it."""


def quoted(prompt: str) -> str | None:
    """The text between the first two double quotes of a prompt; None without two."""
    match = QUOTED.search(prompt)
    return match[1] if match else None


def plain(text: str) -> str:
    """Without spaces, in lower case: how texts are compared."""
    return text.replace(" ", "").lower()


def joined(detections: Iterable[Detection]) -> str:
    """All that was read with a confidence above 0, in the engine's order."""
    return "".join(text for text, confidence in detections if confidence > 0)


def text_score(found: str, target: str) -> float:
    """How much of the wanted text was found, in [0, 1].

        1 - d / |target|,  d = 0 if target is part of found, else min(edit distance, |target|)

    Both without spaces and in lower case.

    Args:
        found: what was read in the picture.
        target: what the prompt asks for.

    Raises:
        ValueError: nothing is left of `target` without its spaces.

    References:
        Liu et al., "Flow-GRPO: Training Flow Matching Models via Online RL", arXiv:2505.05470 (visual text rendering).
    """
    from rapidfuzz.distance import Levenshtein

    found, target = plain(found), plain(target)
    if not target:
        raise ValueError("expected a text to look for, found an empty one.")
    if target in found:
        return 1.0
    return 1.0 - min(Levenshtein.distance(found, target), len(target)) / len(target)


class OcrScore:
    """Share of the quoted text that is readable in the picture, in [0, 1]; 1 if all of it is there.

    The text is what stands between the first two double quotes of the prompt, or in a column.

    Args:
        column: data-set column with the text, instead of the prompt's quotes.
        threads: of the recogniser; 0 leaves the choice to onnxruntime.

    Note:
        Flow-GRPO reads with PaddleOCR and gives 0 where the reader fails. Here such a sample is unscored, with the
        reason: a failure says nothing about the picture.
    """

    def __init__(self, column: str | None = None, threads: int = 1) -> None:
        whole("threads", threads, least=0)
        self.column = column
        self._read = Lazy(lambda: _engine(threads))
        self._lock = threading.Lock()
        _check_installed()

    def __call__(self, *, images: Sequence[Image], prompts: Sequence[str], **columns: Sequence[Any]) -> list[Any]:
        """One score per picture (Any: a number, or `Unscored`)."""
        targets = self._targets(prompts, columns)
        return [self._score(image, target) for image, target in zip(images, targets, strict=True)]

    def check_rows(self, *, prompts: Sequence[str], **columns: Sequence[Any]) -> None:
        """Refuse prompts without a text to look for.

        Raises:
            AlignError: names the first rows.
        """
        targets = self._targets(prompts, columns)
        bad = [row for row, target in enumerate(targets) if not _usable(target)]
        if bad:
            where = f"column `{self.column}`" if self.column else "double quotes of the prompt"
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            found = f"row {bad[0] + 1}{more} of {len(prompts)}"
            raise AlignError(
                f"{found}: no text to look for in the {where}: {prompts[bad[0]]!r}.",
                'Write the text between double quotes (`a sign that says "OPEN"`), or name its column by `column`.',
            )

    def _targets(self, prompts: Sequence[str], columns: dict[str, Sequence[Any]]) -> Sequence[Any]:
        if self.column is None:
            return [quoted(prompt) for prompt in prompts]
        if self.column not in columns:
            raise AlignError(
                f"option `column` is `{self.column}`, but the prompts' columns are: {', '.join(columns) or 'none'}.",
                "Correct it, or leave it out to read the prompt's double quotes.",
            )
        return columns[self.column]

    def _score(self, image: Image, target: Any) -> float | Unscored:
        if not _usable(target):
            return Unscored("has no text to look for: no double quotes in the prompt, or an empty column")
        try:
            with self._lock:
                detections = self._read()(image)
        except Exception as error:
            return Unscored(f"could not read the picture ({type(error).__name__}: {error})")
        return text_score(joined(detections), target)


def _usable(target: Any) -> bool:
    return isinstance(target, str) and bool(plain(target))


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("rapidocr", "onnxruntime", "rapidfuzz") if find_spec(name) is None]
    if missing:
        raise AlignError(f"the reward `ocr` needs {', '.join(missing)}, which is not installed.", f"{INSTALL}")


def _engine(threads: int) -> Callable[[Image], list[Detection]]:
    """The recogniser: text boxes, then their texts; no classifier of upside-down lines, as in the published reward."""
    import numpy as np
    import rapidocr

    folder = Path(rapidocr.__file__).parent / "models"
    models = {part: next(iter(sorted(folder.glob(f"*_{part}_*.onnx"))), None) for part in ("det", "rec")}
    if None in models.values():
        raise AlignError(f"rapidocr brings no models in {folder}.", f"Install a wheel that does: {INSTALL}")
    number = threads or -1
    engine = rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,
            "Global.text_score": 0.0,
            "Det.model_path": str(models["det"]),
            "Rec.model_path": str(models["rec"]),
            "EngineConfig.onnxruntime.intra_op_num_threads": number,
            "EngineConfig.onnxruntime.inter_op_num_threads": number,
        }
    )

    def read(image: Image) -> list[Detection]:
        found: Any = engine(np.asarray(image.convert("RGB"))[:, :, ::-1])  # BGR, as OpenCV orders channels
        return list(zip(found.txts or (), found.scores or (), strict=True))

    return read
