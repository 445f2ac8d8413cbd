"""A language model with a linear head on the hidden state of the last token, as transformers' sequence classifiers.

    r = W h_last,     W [k, d], no bias, float32

The trunk is the one that `load_causal_lm` finds (folder, hub id, GGUF, an adapter merged in); only the output layer is
another. The weights are those of `AutoModelForSequenceClassification`, which finds the last token by comparing with the
padding token. So that token must be one that ends no answer; many tokenizers pad with EOS, which does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.config.shared import LoraConfig
from align.engine.adapters import Policy
from align.engine.random import generator
from preference.models.language_model import LanguageModel
from preference.models.locate import ModelError
from preference.models.quiet import quiet

HEAD = "score"
"""What transformers calls the head of a decoder's sequence classifier."""
PADDING = "<|pad|>"
"""Token that is added where a tokenizer has none that could pad."""


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """A classifier with its tokenizer.

    Attributes:
        language: network and tokenizer; the network is a sequence classifier.
        names: the heads, in the order of the columns.
    """

    language: LanguageModel
    names: tuple[str, ...]

    @property
    def network(self) -> nn.Module:
        """The classifier."""
        return self.language.network

    @property
    def pad_id(self) -> int:
        """The token that fills rows up."""
        return int(self.language.tokenizer.pad_token_id)

    def policy(self, lora: LoraConfig | None, *, seed: int) -> Policy:
        """The trainable network: all weights, or adapters and the head."""
        if lora is None:
            return self.language.policy(None, seed=seed)
        adapted = self.language.policy(lora, seed=seed)
        head = getattr(self.network, HEAD).weight.requires_grad_(True)
        weights = {**adapted.trainable_parameters(), f"{HEAD}.weight": head}
        return Policy(self.network, weights, identity=adapted.identity)


def with_heads(model: LanguageModel, names: Sequence[str], *, seed: int | None) -> RewardModel:
    """Put a head on a language model; its output layer goes.

    A head for pairs is drawn with deviation 1 / sqrt(d + 1), as OpenAI's first reward models are: scores begin with a
    deviation of about 1. Ratings are trained as numbers in [0, 1], far inside of that noise, so their heads begin at 0.

    Args:
        model: a causal language model; its trunk is used, not copied.
        names: of the heads.
        seed: of the draw; None = zeros.

    Raises:
        ModelError: the family has no sequence classifier with a linear head.

    References:
        Stiennon et al., "Learning to summarize from human feedback", arXiv:2009.01325 (the draw of the head).
    """
    causal: Any = model.network  # Any: transformers has one class per family
    prefix = causal.base_model_prefix
    classifier = _empty_classifier(causal, names, model.source)
    if not isinstance(getattr(classifier, HEAD, None), nn.Linear) or not hasattr(classifier, prefix):
        raise ModelError(
            f"model.path {model.source!r}: {type(classifier).__name__} has no linear head on the last token.",
            way_out="Use a decoder such as Llama, Qwen, Gemma, Mistral or GPT-2.",
        )
    setattr(classifier, prefix, getattr(causal, prefix))
    width = getattr(classifier, HEAD).in_features
    head = nn.Linear(width, len(names), bias=False, dtype=torch.float32)
    with torch.no_grad():
        head.weight.zero_()
        if seed is not None:
            head.weight.normal_(0, (width + 1) ** -0.5, generator=generator(seed, "reward_head"))
    setattr(classifier, HEAD, head.to(next(causal.parameters()).device))
    classifier.requires_grad_(False).eval()
    _set_padding(classifier, model)
    return RewardModel(language=replace(model, network=classifier), names=tuple(names))


def _empty_classifier(causal: Any, names: Sequence[str], source: str) -> Any:
    """The classifier of the family, without weights."""
    from transformers import AutoModelForSequenceClassification

    settings = copy.deepcopy(causal.config)
    settings.num_labels = len(names)
    settings.id2label = dict(enumerate(names))
    settings.label2id = {name: number for number, name in enumerate(names)}
    settings.problem_type = "regression"
    try:
        with torch.device("meta"), quiet():
            return AutoModelForSequenceClassification.from_config(settings)
    except ValueError as error:
        raise ModelError(
            f"model.path {source!r}: transformers has no sequence classifier for {settings.model_type!r}.",
            way_out="Use a decoder such as Llama, Qwen, Gemma, Mistral or GPT-2.",
        ) from error


def _set_padding(classifier: Any, model: LanguageModel) -> None:
    tokenizer, ends = model.tokenizer, {*model.stop_ids, model.tokenizer.eos_token_id}
    named = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token)
    token = next((name for name in named if name and tokenizer.convert_tokens_to_ids(name) not in ends), None)
    if token is None:
        tokenizer.add_special_tokens({"pad_token": PADDING})
        if len(tokenizer) > classifier.get_input_embeddings().num_embeddings:
            classifier.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            classifier.requires_grad_(False)
    else:
        tokenizer.pad_token = token
    tokenizer.padding_side = "right"
    for settings in (classifier.config, classifier.config.get_text_config()):
        settings.pad_token_id = tokenizer.pad_token_id


def pad_right(sequences: Sequence[Int[Tensor, "_"]], pad_id: int) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n"]]:
    """Rows of equal length, and the place of each one's last token."""
    ids = nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=pad_id)
    return ids, torch.tensor([len(row) - 1 for row in sequences])


def placed(network: nn.Module, sequences: Sequence[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """The same on the network's device."""
    ids, last = pad_right(sequences, pad_id)
    device = next(network.parameters()).device
    return ids.to(device), last.to(device)


def hidden_states(network: nn.Module, ids: Int[Tensor, "n t"], last: Int[Tensor, "n"]) -> Float[Tensor, "n t d"]:
    """Hidden states of the trunk; what stands behind the last token is masked."""
    model: Any = network
    mask = (torch.arange(ids.shape[1], device=ids.device) <= last[:, None]).long()
    return getattr(model, model.base_model_prefix)(input_ids=ids, attention_mask=mask, use_cache=False)[0]


def states_at(hidden: Float[Tensor, "n t d"], places: Int[Tensor, "n"]) -> Float[Tensor, "n d"]:
    """One state of each row."""
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


def last_token_scores(network: nn.Module, ids: Int[Tensor, "n t"], last: Int[Tensor, "n"]) -> Float[Tensor, "n k"]:
    """The head on these states, in float32 whatever the trunk computes in: bfloat16 has steps of 0.008 at 1."""
    return head_scores(network, states_at(hidden_states(network, ids, last), last))


def head_scores(network: nn.Module, states: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """The head on some states, in float32."""
    with torch.autocast(states.device.type, enabled=False):
        return nn.functional.linear(states.float(), getattr(network, HEAD).weight.float())
