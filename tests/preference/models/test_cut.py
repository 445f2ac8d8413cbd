"""A student cut from a larger model: the layers that were asked for, in a folder that transformers reads."""

import pytest
import torch
from torch.testing import assert_close

from align.errors import AlignError
from preference.config import CausalLm
from preference.models import load_causal_lm
from preference.models.cut import cut, every, main, without_every

from ..miniatures import miniature
from ..tokenizers import model_folder


def test_every_second_layer_by_hand():
    assert every(5, 2) == (0, 2, 4)
    assert every(3, 5) == (0,)
    assert without_every(8, 4) == (0, 1, 3, 4, 5, 7)
    for function, step in ((every, 0), (without_every, 1)):
        with pytest.raises(ValueError, match="at least"):
            function(3, step)


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma3", "gpt2", "qwen2-window"])
def test_a_cut_model_skips_the_other_layers(family):
    """Logits of the second layer alone: the model itself with its first layer taken out.

    Families round some of their constants to float32 when they are made: 1e-5.
    """
    from preference.models.language_model import LanguageModel

    network = miniature(family)
    smaller = cut(LanguageModel(network=network, tokenizer=None), [1])
    ids = torch.tensor([[3, 9, 27, 81, 2, 6]])
    found = smaller.network(input_ids=ids).logits
    blocks = network.transformer.h if family == "gpt2" else network.model.layers
    name = "n_layer" if family == "gpt2" else "num_hidden_layers"
    taken = blocks[0]
    del blocks[0]
    setattr(network.config, name, 1)
    if getattr(network.config, "layer_types", None):
        network.config.layer_types = network.config.layer_types[1:]
    for part in blocks[0].modules():
        if hasattr(part, "layer_idx"):
            part.layer_idx = 0
    assert_close(found, network(input_ids=ids, use_cache=False).logits, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in smaller.network.parameters()) < sum(
        p.numel() for part in (network, taken) for p in part.parameters()
    )


def test_the_folder_is_a_stock_one(tmp_path, capsys):
    model_folder(tmp_path / "large")
    main([str(tmp_path / "large"), str(tmp_path / "small"), "--layers", "1"])
    assert "has to be trained" in capsys.readouterr().out
    model = load_causal_lm(CausalLm(path=str(tmp_path / "small")))
    large = load_causal_lm(CausalLm(path=str(tmp_path / "large")))
    assert model.config.num_hidden_layers == 1
    assert torch.equal(
        model.network.model.layers[0].mlp.up_proj.weight, large.network.model.layers[1].mlp.up_proj.weight
    )
    assert model.tokenizer.get_vocab() == large.tokenizer.get_vocab()
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "large"), str(tmp_path / "small"), "--every", "2"])
    assert caught.value.code == 2


def test_layers_that_are_not_there(tmp_path):
    model_folder(tmp_path / "large")
    model = load_causal_lm(CausalLm(path=str(tmp_path / "large")))
    for keep in ([2], [1, 0], [], [0, 0]):
        with pytest.raises(AlignError, match="from 0 to 1"):
            cut(model, keep)
