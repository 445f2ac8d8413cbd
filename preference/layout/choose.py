"""The cheapest layout of a batch, or of a run, that a model can take."""

from __future__ import annotations

from collections.abc import Sequence

from preference.layout.attention import PiecewiseMask, piecewise
from preference.layout.masks import visible
from preference.layout.rows import LAYOUTS, Group, Layout
from preference.layout.support import Support


def cost(layout: Layout, hidden_size: int, *, pieces: bool = False) -> float:
    """Multiply-adds of a layer, up to a factor, for rows of t places and width d.

        padded            b t (6 d + t / 2)        causal kernels skip half of the scores
        packed, shared    b t (6 d + t)            every score is computed and masked
        in pieces         b (6 t d + pairs)        of a row; see `preference.layout.pieces`

    12 d^2 a place for projections and feed-forward, 2 t d for scores and values, divided by 2 d. Flex attention skips
    masked blocks, so the second line is its upper bound. The processor's causal kernel skips nothing before 512 places,
    so the first line is its lower bound.

    Args:
        layout: of the batch.
        hidden_size: d.
        pieces: `Support.pieces` of the model. Windows of its layers, which leave fewer pairs, are not counted.
    """
    rows, width = layout.input_ids.shape
    scores = width * width / 2 if layout.kind == "padded" else float(width * width)
    if pieces and layout.kind != "padded" and isinstance(mask := piecewise(visible(layout)), PiecewiseMask):
        scores = float(sum(piece.pairs for piece in mask.pieces))
    return float(rows * (6 * width * hidden_size + scores))


def choose_layout(groups: Sequence[Group], support: Support, *, hidden_size: int, pad_id: int = 0) -> Layout:
    """The layout with the lowest `cost` among those that the model can take.

    Args:
        groups: the batch.
        support: of `layout_support`.
        hidden_size: d, width of the model.
        pad_id: id for padding.
    """
    layouts = [LAYOUTS[name](groups, pad_id=pad_id) for name in support.layouts]
    return min(layouts, key=lambda layout: cost(layout, hidden_size, pieces=support.pieces))


def costs(batches: Sequence[Sequence[Group]], support: Support, *, hidden_size: int) -> dict[str, float]:
    """`cost` of some batches in each layout that the model can take, as a share of that of padded rows.

    Args:
        batches: micro-batches as the run will see them.
        support: of `layout_support`.
        hidden_size: d, width of the model.
    """
    found = {
        name: sum(cost(LAYOUTS[name](groups), hidden_size, pieces=support.pieces) for groups in batches)
        for name in ("padded", *support.layouts)
    }
    return {name: value / found["padded"] for name, value in found.items()}
