"""Methods that learn from a teacher's distributions, and the teachers' records. Torch-free.

The same configuration serves both commands: `align teach` computes the records of its training pairs, `align train`
learns from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from align.config.numbers import NonNegativeFloat, PositiveFloat, PositiveInt
from align.config.paths import Folders, Located, ModelPath
from preference.config.data import DataPath
from preference.config.models import find_model

TeacherPath = Annotated[str, Located(find_model)]
"""A text field that names a model, as `model.path` does."""


def find_records(text: str, folders: Folders) -> str:
    """A folder that may not be there yet: where it is found, otherwise in the last of the folders."""
    places = [folder / Path(text).expanduser() for folder in folders]
    return str(next((place for place in places if place.is_dir()), places[-1]).resolve())


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """An aligned teacher, and where its records are kept. It needs the student's tokenizer."""

    records: Annotated[str, Located(find_records)] = "teacher"
    """Folder of the records: `align teach` fills it, `align train` reads it."""
    path: TeacherPath = "builtin:tiny"
    """The aligned teacher, or what `adapter` was trained on; named as in `model.path`."""
    adapter: ModelPath | None = None
    """A peft adapter from preference training on top of `path`, such as `weights/` of a finished DPO run."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the teachers' weights. Their last product and the softmax are float32 in any case."""
    attention: Literal["sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3"] = "sdpa"
    """Attention implementation of the teachers."""
    top_k: PositiveInt = 50
    """Entries of the vocabulary that are kept of each token; at the vocabulary's size, all of it."""
    precision: Literal["float16", "float32"] = "float16"
    """How log-probabilities and log-ratios are stored; the mass of the rest is float32 in any case."""
    batch_size: PositiveInt = 8
    """Pairs that a teacher reads at once; changes speed and memory only."""
    heldout: bool = True
    """Record the pairs of `data.heldout`, too (in `heldout/` of that folder): their loss is then the method's own, and
    without their records the likelihood of the chosen answer."""
    shard_megabytes: PositiveInt = 64
    """A file is written whenever so much has been computed; what is written survives a kill."""


@dataclass(frozen=True, kw_only=True)
class TwoTeachersConfig(TeacherConfig):
    """An aligned teacher and the same model before its preference training."""

    reference: TeacherPath | None = None
    """The teacher before preference training; `null` is `path` without its `adapter`."""
    support: Literal["top_k", "union"] = "top_k"
    """The aligned teacher's `top_k` entries (the released code), or those and the reference teacher's own."""


@dataclass(frozen=True, kw_only=True)
class DckdConfig:
    """DCKD: learn an aligned teacher's distributions on chosen and rejected answers. arXiv:2502.17927."""

    kind: Literal["dckd"] = "dckd"
    """Selects this method."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The aligned teacher and its records."""
    alpha: NonNegativeFloat = 0.2
    """Weight of both divergences beside the supervised term."""
    chosen_weight: NonNegativeFloat = 1.0
    """Weight of the divergence on chosen answers, within alpha."""
    rejected_weight: NonNegativeFloat = 1.0
    """Weight of the divergence on rejected answers, within alpha."""
    sft_weight: NonNegativeFloat = 1.0
    """Weight of the negative log-likelihood of the chosen answers; a mean over all chosen tokens of an update."""
    tail: Literal["bucket", "renormalise"] = "bucket"
    """Mass outside of the kept entries: one more entry (a lower bound of the whole divergence), or left out."""

    def reads_reference(self) -> bool:
        """Never: the teacher takes its place."""
        return False


@dataclass(frozen=True, kw_only=True)
class AdpaConfig:
    """ADPA: raise, along the student's own answers, what an aligned teacher prefers to its unaligned self.

    arXiv:2502.17927. ADPA+ is this method on a student that `dckd` has trained.
    """

    kind: Literal["adpa"] = "adpa"
    """Selects this method."""
    teacher: TwoTeachersConfig = field(default_factory=TwoTeachersConfig)
    """Both teachers and their records."""
    student_answers: DataPath | None = None
    """The student's answers to the training prompts, a file of `align generate`; `null`: the rejected answers."""
    gamma: NonNegativeFloat = 1.5
    """Weight of the advantage term. Published best 1.5; beyond 3 it over-optimises."""
    advantage_beta: PositiveFloat = 1.0
    """beta of the advantage beta (log pi_dpo - log pi_ref); 1 in the released code, which leaves the scale to gamma."""
    clip: Literal["paper", "released"] | tuple[float, float] = "paper"
    """Range of the advantage: signed and unbounded, [0, 1] as the released code's loader leaves it, or two numbers."""
    score_end: bool = True
    """Let the last token of an answer have an advantage, too; false: it counts with 0, as in the released code."""
    sft_weight: NonNegativeFloat = 1.0
    """Weight of the negative log-likelihood of the chosen answers; a mean over all chosen tokens of an update."""

    def reads_reference(self) -> bool:
        """Never: the reference teacher is part of the records."""
        return False


Taught = (DckdConfig, AdpaConfig)
"""Methods that learn from records."""
