"""Log-probabilities of tokens and sequences, from logits or, in chunks, from hidden states.

Length normalisation is `average=True` of `sequence_log_probs`, `pool_tokens` and `pool_flat`: the division that makes
SimPO and length-normalised DPO.
"""

from preference.logprobs.chunked import EXTRAS, TokenScores, log_probs_at, map_logits, score_tokens
from preference.logprobs.head import Head, LinearHead, ModuleHead
from preference.logprobs.tokens import log_probs_of, pool_flat, pool_tokens, sequence_log_probs, token_log_probs

__all__ = [
    "EXTRAS",
    "Head",
    "LinearHead",
    "ModuleHead",
    "TokenScores",
    "log_probs_at",
    "log_probs_of",
    "map_logits",
    "pool_flat",
    "pool_tokens",
    "score_tokens",
    "sequence_log_probs",
    "token_log_probs",
]
