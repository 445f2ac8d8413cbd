"""Which layouts a model can take, found by its configuration and by a probe on two tiny rows.

A packed or shared row is exact only if the model (1) has nothing but attention between its places: a recurrent or
linear layer would carry the chosen answer into the rejected one; (2) obeys a four-dimensional mask; (3) reads
`position_ids`.
Class names do not tell; numbers do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from preference.layout.attention import PiecewiseMask, compiled, piecewise, same_as_torch
from preference.layout.last_layer import LastLayer, find_last_layer, narrowed
from preference.layout.lean import LeanLayers, find_lean_layers, lean
from preference.layout.masks import additive, block_mask, visible
from preference.layout.rows import Group, Layout, padded, shared
from preference.logprobs.split import in_evaluation

Mask = Callable[[Layout, int | None, torch.dtype], Any]  # Any: tensor or BlockMask

MASKS: dict[str, Mask] = {
    "sdpa": lambda layout, window, dtype: visible(layout, window),
    "eager": lambda layout, window, dtype: additive(visible(layout, window), dtype),
    "flex_attention": lambda layout, window, dtype: block_mask(layout, window),
}
"""How each attention implementation of transformers wants its mask."""

_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest distance of a hidden state that counts as rounding, as a share of its length.

Not less for float64: norms and softmax of most families compute in float32 whatever their weights are.
"""


@dataclass(frozen=True, kw_only=True)
class Support:
    """What a model can take.

    Attributes:
        layouts: names of `LAYOUTS`, `padded` always among them.
        reasons: layouts that it cannot take, and why, for the log.
        implementation: name of its attention implementation.
        windows: kind of layer -> its sliding window, None = no limit (or none that the data reaches).
        by_layer: whether the model takes one mask per kind of layer, in a dict.
        dtype: of additive masks.
        last_layer: what of it needs no other places than those that are read; None = nothing is known of it.
        lean_layers: layers that keep less for the backward pass; None = none do.
        pieces: whether attention of packed and shared rows leaves out what no row sees.
    """

    layouts: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    implementation: str = "sdpa"
    windows: Mapping[str, int | None] = field(default_factory=lambda: {"full_attention": None})
    by_layer: bool = False
    dtype: torch.dtype = torch.float32
    last_layer: LastLayer | None = None
    lean_layers: LeanLayers | None = None
    pieces: bool = False


def model_inputs(layout: Layout, support: Support) -> dict[str, Any]:
    """Arguments of a transformers trunk for a batch in this layout.

    Padded rows come without mask and positions: they are filled on the right, a causal model does not look there, and
    every model counts a row from 0. So the fast causal kernels stay available, and models that know no positions run.
    """
    inputs: dict[str, Any] = {"input_ids": layout.input_ids, "use_cache": False}
    if layout.kind == "padded":
        return inputs
    make = MASKS[support.implementation]
    masks = {kind: make(layout, window, support.dtype) for kind, window in support.windows.items()}
    if support.pieces:
        masks = {kind: piecewise(mask) for kind, mask in masks.items()}
    mask = masks if support.by_layer else next(iter(masks.values()))
    return {**inputs, "position_ids": layout.position_ids, "attention_mask": mask}


def states_read(trunk: nn.Module, layout: Layout, support: Support) -> Float[Tensor, "m d"]:
    """A pass of the trunk: the hidden states that predict the scored tokens, in the order of `labels`."""
    if support.pieces and compiled(trunk):
        support = replace(support, pieces=False)
    places, inputs = layout.input_ids.numel(), model_inputs(layout, support)
    with lean(trunk, support.lean_layers), narrowed(trunk, support.last_layer, layout.read, places=places):
        return layout.predicting(_states(trunk, inputs))


def layout_support(trunk: nn.Module, *, longest: int | None = None) -> Support:
    """Which layouts give the hidden states that each sequence alone would give.

    Args:
        trunk: model without its head (`split_model(...).trunk`), with its `config`; any device, any mode.
        longest: tokens of the longest sequence in the data. Below a sliding window the window never acts; above it the
            probe is longer than the window, too. None = unknown, which counts as above.

    Returns:
        The layouts, and for those left out a reason that names what was found.
    """
    config: Any = getattr(trunk, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    dtype = next(trunk.parameters()).dtype
    implementation = str(getattr(config, "_attn_implementation", None) or "eager")
    windows, reason = _windows(config, longest)
    support = Support(
        layouts=("padded", "packed", "shared"),
        implementation=implementation,
        windows=windows,
        by_layer=len(windows) > 1,
        dtype=dtype,
    )
    if implementation not in MASKS:
        reason = f"attention implementation {implementation!r} takes no mask of our own; use sdpa"
    if reason is None:
        reason = _probe(trunk, support, int(getattr(config, "vocab_size", 0) or 8))
    vocabulary = int(getattr(config, "vocab_size", 0) or 8)
    leaner = _lean_layers(trunk, implementation, vocabulary)
    support = replace(support, last_layer=_last_layer(trunk, vocabulary), lean_layers=leaner)
    if reason is None:
        return replace(support, pieces=_pieces(trunk, support, vocabulary))
    return replace(support, layouts=("padded",), reasons=dict.fromkeys(("packed", "shared"), reason))


@torch.no_grad()
def _last_layer(trunk: nn.Module, vocabulary: int) -> LastLayer | None:
    """By a probe of two rows of which the answers are read."""
    row = padded([_probe_group(Support(layouts=()), vocabulary)]).to(next(trunk.parameters()).device)
    inputs = {"input_ids": row.input_ids, "use_cache": False}
    try:
        with in_evaluation(trunk):
            return find_last_layer(trunk, lambda: _states(trunk, inputs), row.read)
    except Exception:  # whatever a model raises at parts of rows: then it computes all of them
        return None


def _lean_layers(trunk: nn.Module, implementation: str, vocabulary: int) -> LeanLayers | None:
    """By a probe of two rows. Flex attention transforms functions inside of the layers, which refuses recipes."""
    if implementation == "flex_attention":
        return None
    row = padded([_probe_group(Support(layouts=()), vocabulary)]).to(next(trunk.parameters()).device)
    inputs = {"input_ids": row.input_ids, "use_cache": False}
    try:
        with in_evaluation(trunk):
            return find_lean_layers(trunk, lambda: _states(trunk, inputs))
    except Exception:  # whatever a model raises at tensors that are not kept: then it keeps all of them
        return None


@torch.no_grad()
def _pieces(trunk: nn.Module, support: Support, vocabulary: int) -> bool:
    """By a probe of a shared row in small pieces: whether every kind of layer takes them, and to the same states."""
    row = shared([_probe_group(support, vocabulary)]).to(next(trunk.parameters()).device)
    inputs = model_inputs(row, support)
    tile = max(4, row.input_ids.shape[1] // 4)
    whole = inputs["attention_mask"] if support.by_layer else {"": inputs["attention_mask"]}
    if not all(isinstance(mask, Tensor) and mask.dtype == torch.bool for mask in whole.values()):
        return False
    parts = {kind: piecewise(mask, tile=tile, least=0) for kind, mask in whole.items()}
    try:
        with in_evaluation(trunk):
            expected = row.predicting(_states(trunk, inputs))
            with narrowed(trunk, support.last_layer, row.read):
                mask = parts if support.by_layer else parts[""]
                ours = row.predicting(_states(trunk, {**inputs, "attention_mask": mask}))
    except Exception:  # whatever a model raises at a mask of its own kind: then it gets the plain one
        return False
    used = all(isinstance(part, PiecewiseMask) and part.uses for part in parts.values())
    return used and same_as_torch(expected.dtype) and _distance(ours, expected) <= _TOLERANCE[expected.dtype]


def _windows(config: Any, longest: int | None) -> tuple[dict[str, int | None], str | None]:
    """Window of each kind of layer, or why there is none."""
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    window = getattr(config, "sliding_window", None)
    if not isinstance(window, int) or (longest is not None and longest <= window):
        window = None
    strange = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]
    if strange:
        return {}, f"layers of kind {strange[0]!r} carry more from place to place than attention does"
    if not kinds:  # one mask for all layers, with the window if there is one
        return {"sliding_attention" if window else "full_attention": window}, None
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}, None


@torch.no_grad()
def _probe(trunk: nn.Module, support: Support, vocabulary: int) -> str | None:
    """Why shared rows are not exact, or None: one prompt with two branches against its two sequences alone."""
    group = _probe_group(support, vocabulary)
    device = next(trunk.parameters()).device
    row, alone = shared([group]).to(device), padded([group]).to(device)
    running = torch.arange(row.input_ids.shape[1], device=device)[None]
    inputs = model_inputs(row, support)
    try:
        with in_evaluation(trunk):
            expected = torch.cat([_alone(trunk, alone, sequence) for sequence in range(2)])
            ours = row.predicting(_states(trunk, inputs))
            other_positions = row.predicting(_states(trunk, {**inputs, "position_ids": running}))
            no_mask = row.predicting(_states(trunk, {**inputs, "attention_mask": None}))
    except Exception as error:  # whatever a model raises at inputs that it does not know
        first_line = (str(error).splitlines() or [""])[0]
        return f"its forward does not accept the mask or the positions ({type(error).__name__}: {first_line})"
    return _verdict(ours, expected, other_positions, no_mask)


def _verdict(ours: Tensor, expected: Tensor, other_positions: Tensor, no_mask: Tensor) -> str | None:
    error = _distance(ours, expected)
    tolerance = _TOLERANCE.get(expected.dtype, 5e-2)
    if not error <= tolerance:
        return f"a probe's hidden states are off by {error:.1e} of their length (rounding is below {tolerance:.0e})"
    # What changes nothing, to the last bit, is not read. The probe's rows may be too small for its tolerance to notice.
    if torch.equal(no_mask, ours):
        return "it does not read the four-dimensional mask"
    if torch.equal(other_positions, ours):
        return "it does not read position_ids"
    return None


def _distance(ours: Tensor, expected: Tensor) -> float:
    """Largest distance of a state, as a share of its length."""
    length = torch.linalg.vector_norm(expected.double(), dim=-1).clamp(min=1e-12)
    return float((torch.linalg.vector_norm((ours - expected).double(), dim=-1) / length).max())


def _probe_group(support: Support, vocabulary: int) -> Group:
    """A prompt and two branches of odd lengths; longer than the window if there is one that the data reaches."""
    window = max((window for window in support.windows.values() if window is not None), default=0)
    lengths = (window + 5, 7, 4)
    ids = (torch.arange(sum(lengths)) * 7919 + 13) % vocabulary
    prompt, first, second = ids.split(lengths)
    return Group(prompt=prompt, responses=(first, second))


def _alone(trunk: nn.Module, alone: Layout, sequence: int) -> Tensor:
    """Hidden states that predict one sequence's response, from that sequence and nothing else."""
    real = alone.units[sequence] >= 0
    states = _states(trunk, {"input_ids": alone.input_ids[sequence, real][None], "use_cache": False})[0]
    places = alone.predictors[alone.sequence_ids == sequence] - sequence * alone.input_ids.shape[1]
    return states[places]


def _states(trunk: nn.Module, inputs: dict[str, Any]) -> Tensor:
    return trunk(**inputs).last_hidden_state
