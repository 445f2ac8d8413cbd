"""The teachers as models: an aligned one and, for advantages, the same before its preference training.

Two model folders, or one model with an adapter that is switched off for the reference. Records are made on the
*student's* token ids, so a teacher has to give every id the same meaning; the padding of embeddings may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from preference.config.models import CausalLm
from preference.config.teacher import TeacherConfig, TwoTeachersConfig
from preference.forward import LayoutPlan, plan_layout
from preference.layout import LAYOUTS, Group, Layout, states_read
from preference.logprobs.split import parts_of
from preference.models.language_model import LanguageModel
from preference.models.load import load, load_tokenizer
from preference.models.locate import ModelError
from preference.models.quiet import quiet
from preference.teacher import support_union
from preference.teacher_pass import Read, States, at_given, likeliest, log_prob_record, ratio_record

SHOWN = 3
"""Tokens that an error lists."""


@dataclass(kw_only=True)
class Teachers:
    """Loaded teachers.

    Attributes:
        aligned: pi_dpo.
        reference: pi_ref, `aligned` itself where it is the same network without its adapter; None where none is needed.
        vocabulary: ids that all models and the tokenizer know.
        weights: fingerprint of the aligned teacher.
        reference_weights: of the reference, None without.
    """

    aligned: nn.Module
    reference: nn.Module | None
    vocabulary: int
    weights: str
    reference_weights: str | None

    def plan(self, batches: Sequence[Sequence[Group]], longest: int) -> LayoutPlan:
        """The cheapest layout that both can take."""
        plan = plan_layout(self.aligned, batches, longest=longest)
        if self.reference is None or self.reference is self.aligned:
            return plan
        other = plan_layout(self.reference, batches, longest=longest, wanted=plan.kind)
        return plan if other.kind == plan.kind else plan_layout(self.aligned, batches, longest=longest, wanted="padded")

    @torch.no_grad()
    def read(self, groups: Sequence[Group], config: TeacherConfig, plan: LayoutPlan) -> Read:
        """Records of the tokens of some answers, in the order of `groups`.

        Args:
            groups: prompts with the answers that are scored.
            config: k and support.
            plan: of `plan`.
        """
        layout = LAYOUTS[plan.kind](groups).to(next(self.aligned.parameters()).device)
        aligned = self._states(self.aligned, layout, plan)
        record = likeliest(aligned, config.top_k)
        if self.reference is None:
            return log_prob_record(record)
        counted = None
        with self._as_reference():
            reference = self._states(self.reference, layout, plan)
            own = likeliest(reference, config.top_k).ids if _reads_both(config) else None
        if own is not None:
            ids, counted = support_union(record.ids, own)
            record = at_given(aligned, ids)
        with self._as_reference():  # an adapter on the output layer is off where the reference's head is used
            return ratio_record(record, at_given(reference, record.ids), counted)

    def _states(self, network: nn.Module, layout: Layout, plan: LayoutPlan) -> States:
        split = parts_of(network, float32_product=True)
        hidden = states_read(split.trunk, layout, plan.support)
        return States(hidden=hidden, head=split.head, vocabulary=self.vocabulary)

    def _as_reference(self) -> AbstractContextManager[Any]:
        network: Any = self.aligned  # Any: peft's models
        return network.disable_adapter() if self.reference is self.aligned else nullcontext()


def load_teachers(config: TeacherConfig, student: Any, device: torch.device | str) -> Teachers:
    """Both teachers, frozen, checked against the student's tokenizer.

    Args:
        config: which.
        student: the student's tokenizer (Any: transformers' tokenizers have no common type here).
        device: where they go.

    Raises:
        ModelError: a model that cannot be loaded, or one with another vocabulary.
    """
    model = load(_model(config, config.path), device)
    sizes, weights = [model.vocabulary_size], model.fingerprint()
    other: LanguageModel | None = None
    if isinstance(config, TwoTeachersConfig) and config.reference is not None:
        other = load(_model(config, config.reference), device)
        sizes.append(other.vocabulary_size)
    reference, reference_weights = (None, None) if other is None else (other.network, other.fingerprint())
    aligned = model.network
    if config.adapter is not None:
        aligned = _adapted(model.network, Path(config.adapter).expanduser())
        if isinstance(config, TwoTeachersConfig) and other is None:
            reference, reference_weights = aligned, weights
        weights = _with_file(weights, Path(config.adapter).expanduser() / "adapter_model.safetensors")
    return Teachers(
        aligned=aligned,
        reference=reference,
        vocabulary=min(*sizes, 1 + max(student.get_vocab().values())),
        weights=weights,
        reference_weights=reference_weights,
    )


def check_tokenizers(config: TeacherConfig, student: Any) -> list[str]:
    """Refuse teachers whose ids mean something else; no weights are loaded.

    Args:
        config: which teachers.
        student: the student's tokenizer.

    Returns:
        What a person should know all the same, one line each.

    Raises:
        ModelError: says which teacher and what differs.
    """
    reference = config.reference if isinstance(config, TwoTeachersConfig) else None
    notes: list[str] = []
    for path in dict.fromkeys((config.path, reference or config.path)):
        teacher = load_tokenizer(_model(config, path))
        differences = _differences(student, teacher)
        if differences:
            raise ModelError(
                "\n".join([f"the teacher {path!r} has another vocabulary than the student:", *differences]),
                way_out="Records are made on the student's token ids, which this teacher would read as other text. "
                "Choose a teacher and a student of one model family with the same tokenizer.",
            )
        if teacher.chat_template != student.chat_template:
            notes.append(f"{path} has another chat template; it reads the student's, as the student does in training")
    return notes


def _differences(student: Any, teacher: Any) -> list[str]:
    """Ids that mean different texts; what only one of the two has beyond the other's last id is no difference."""
    ours, theirs = ({number: token for token, number in item.get_vocab().items()} for item in (student, teacher))
    both = range(min(max(ours), max(theirs)) + 1)
    other = [number for number in both if ours.get(number) != theirs.get(number)]
    if not other:
        return []
    examples = "; ".join(f"{number}: {ours.get(number)!r} and {theirs.get(number)!r}" for number in other[:SHOWN])
    return [
        f"tokens: the student has {len(ours):,}, the teacher {len(theirs):,}",
        f"{len(other):,} of {len(both):,} ids mean different tokens (student and teacher): {examples}",
    ]


def _model(config: TeacherConfig, path: str) -> CausalLm:
    revision = config.revision if path == config.path else None
    return CausalLm(path=path, revision=revision, dtype=config.dtype, attention=config.attention, lora=None)


def _reads_both(config: TeacherConfig) -> bool:
    return isinstance(config, TwoTeachersConfig) and config.support == "union"


def _adapted(network: nn.Module, folder: Path) -> nn.Module:
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file() or not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"teacher.adapter {str(folder)!r}: expected a folder with adapter_config.json and "
            "adapter_model.safetensors.",
            way_out="Give `weights/` of a finished run of `align train`, or what peft's save_pretrained wrote.",
        )
    base: Any = network
    try:
        with quiet():
            return PeftModel.from_pretrained(base, str(folder)).requires_grad_(False).eval()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"teacher.adapter {str(folder)!r} does not fit {type(network).__name__}: {str(error)[:300]}",
            way_out="Name the adapter's own base model in `teacher.path`.",
        ) from error


def _with_file(fingerprint: str, path: Path) -> str:
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=16)
    digest.update(path.read_bytes())
    return digest.hexdigest()
