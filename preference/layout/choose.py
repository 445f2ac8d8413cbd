"""The cheapest layout of a batch, or of a run, that a model can take."""

from __future__ import annotations

from collections.abc import Sequence

from preference.layout.rows import LAYOUTS, Group, Layout
from preference.layout.support import Support


def cost(layout: Layout, hidden_size: int) -> float:
    """Multiply-adds of a layer, up to a factor, for rows of t places and width d.

        padded            b t (6 d + t / 2)        causal kernels skip half of the scores
        packed, shared    b t (6 d + t)            every score is computed and masked

    12 d^2 a place for projections and feed-forward, 2 t d for scores and values, divided by 2 d. Flex attention skips
    masked blocks, so the second line is its upper bound.
    """
    rows, width = layout.input_ids.shape
    return float(rows * width * (6 * hidden_size + (width / 2 if layout.kind == "padded" else width)))


def choose_layout(groups: Sequence[Group], support: Support, *, hidden_size: int, pad_id: int = 0) -> Layout:
    """The layout with the lowest `cost` among those that the model can take.

    Args:
        groups: the batch.
        support: of `layout_support`.
        hidden_size: d, width of the model.
        pad_id: id for padding.
    """
    layouts = [LAYOUTS[name](groups, pad_id=pad_id) for name in support.layouts]
    return min(layouts, key=lambda layout: cost(layout, hidden_size))


def costs(batches: Sequence[Sequence[Group]], support: Support, *, hidden_size: int) -> dict[str, float]:
    """`cost` of some batches in each layout that the model can take, as a share of that of padded rows.

    Args:
        batches: micro-batches as the run will see them.
        support: of `layout_support`.
        hidden_size: d, width of the model.
    """
    found = {
        name: sum(cost(LAYOUTS[name](groups), hidden_size) for groups in batches)
        for name in ("padded", *support.layouts)
    }
    return {name: value / found["padded"] for name, value in found.items()}
