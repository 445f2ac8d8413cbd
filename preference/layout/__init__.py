"""Batches as rows of tokens: padded, packed, or with shared prompts; and which of them a model can take.

Example:
    >>> split = split_model(model)  # preference.logprobs.split
    >>> support = layout_support(split.trunk, longest=1024)
    >>> layout = choose_layout(groups, support, hidden_size=model.config.hidden_size)
    >>> hidden = states_read(split.trunk, layout, support)
    >>> log_probs = score_tokens(hidden, split.head, layout.labels).log_probs
    >>> chosen, rejected = pool_flat(log_probs, layout.sequence_ids, layout.sequences).view(-1, 2).unbind(1)
"""

from preference.layout.choose import choose_layout, cost, costs
from preference.layout.last_layer import LastLayer
from preference.layout.lean import LeanLayers
from preference.layout.masks import additive, block_mask, visible
from preference.layout.rows import LAYOUTS, Group, Layout, packed, padded, shared
from preference.layout.support import Support, layout_support, model_inputs, states_read

__all__ = [
    "LAYOUTS",
    "Group",
    "LastLayer",
    "Layout",
    "LeanLayers",
    "Support",
    "additive",
    "block_mask",
    "choose_layout",
    "cost",
    "costs",
    "layout_support",
    "model_inputs",
    "packed",
    "padded",
    "shared",
    "states_read",
    "visible",
]
