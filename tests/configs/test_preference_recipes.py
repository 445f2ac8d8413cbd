"""The published recipes for language models: the numbers of the papers and their code, and that the methods take them.

That every file loads with all checks and has a plan is in `test_configs.py`.
"""

import pytest

from align.config.load import load_config
from preference.arithmetic import precomputes
from preference.assemble import METHODS, keeps_copy

SIMPO = {  # Meng et al., arXiv:2405.14734, README of the authors' code: beta, gamma / beta, learning rate, lengths
    "simpo_llama3_instruct": (2.5, 0.55, 1e-6, 2048, 1800),
    "simpo_mistral_base": (2.0, 0.8, 3e-7, 1024, 512),
}
DPO = {  # beta, loss, learning rate, length
    "dpo_zephyr": (0.01, "sigmoid", 5e-7, 1024),
    "dpo_tulu3": (5.0, "sigmoid_norm", 5e-7, 2048),
}


@pytest.mark.parametrize("name", SIMPO)
def test_simpo(name):
    config = load_config(f"preference/{name}")
    found = (
        config.algorithm.beta,
        config.algorithm.margin()["gamma_beta_ratio"],
        config.optimizer.learning_rate,
        config.data.max_length,
        config.data.max_prompt_length,
    )
    assert found == SIMPO[name]
    assert config.algorithm.sft_weight == 0
    assert not precomputes(config, 60_000)


@pytest.mark.parametrize("name", DPO)
def test_dpo(name):
    """All weights are trained, so the reference is asked once, before training, and no second copy is held."""
    config = load_config(f"preference/{name}")
    found = (config.algorithm.beta, config.algorithm.loss, config.optimizer.learning_rate, config.data.max_length)
    assert found == DPO[name]
    assert precomputes(config, 10**9)
    assert not keeps_copy(config, 10**9)


def test_dckd_and_adpa():
    """Gao et al., arXiv:2502.17927: alpha 0.2, gamma 1.5, 50 entries, signed advantages; learning rate of a fork."""
    first, second = load_config("preference/dckd_llama32_1b"), load_config("preference/adpa_llama32_1b")
    assert (first.algorithm.alpha, second.algorithm.gamma, second.algorithm.clip) == (0.2, 1.5, "paper")
    for config in (first, second):
        assert config.algorithm.teacher.top_k == 50
        assert config.algorithm.sft_weight == 1
        assert config.optimizer.learning_rate == 5e-7
        assert not precomputes(config, 60_000)


@pytest.mark.parametrize("name", [*SIMPO, *DPO, "dckd_llama32_1b", "adpa_llama32_1b"])
def test_what_all_have(name):
    """A global batch of 128, a tenth of the steps of warm-up, all weights, bfloat16."""
    config = load_config(f"preference/{name}")
    assert config.data.pairs_per_step == 128
    assert config.optimizer.warmup_updates == config.training.steps // 10
    assert config.model.lora is None
    assert config.training.mixed_precision == "bf16"
    assert type(config.algorithm) in METHODS
