"""Our signal inside TRL's GRPOTrainer; and that no other file imports TRL."""

import ast
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.testing import assert_close

import align
from align.config.credit import Gae
from align.config.pipeline import PipelineConfig
from align.config.shaping import ZScore
from align.errors import AlignError
from align.presets import preset
from preference import trl as adapter
from preference.trl import attach, grpo_trainer

from .tokenizers import network, qwen_like

ROOT = Path(align.__file__).parents[1]


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def odd(completion_ids, **columns):
    return [float(sum(token % 2 for token in ids)) for ids in completion_ids]


def low(completion_ids, **columns):
    return [-float(sum(ids)) / 100 for ids in completion_ids]


def trained(folder, pipeline=None, **settings):
    """Two steps of GRPO on a miniature: the advantages of each, and the trainer."""
    from datasets import Dataset

    trainer_class, config_class = grpo_trainer()
    tokenizer = qwen_like()
    tokenizer.padding_side = "left"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = config_class(
            output_dir=str(folder),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=5,
            max_steps=2,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            seed=1,
            **settings,
        )
        trainer = trainer_class(
            model=network("llama", tokenizer),
            reward_funcs=[odd, low],
            args=args,
            train_dataset=Dataset.from_list([{"prompt": f"the cat {row}"} for row in range(8)]),
            processing_class=tokenizer,
        )
        signal = None if pipeline is None else attach(trainer, pipeline)
        seen, whole = [], trainer._generate_and_score_completions

        def recorded(*args, **kwargs):
            output = whole(*args, **kwargs)
            seen.append(output["advantages"].clone())
            return output

        trainer._generate_and_score_completions = recorded
        trainer.train()
    return seen, trainer, signal


def test_presets_give_trls_own_advantages(tmp_path):
    """`grpo` and `gdpo` against TRL's two ways, over two steps, of which the second follows from the first.

    float32 there, float64 here in the statistics.
    """
    for name, settings in (
        ("grpo", {}),
        ("gdpo", {"multi_objective_aggregation": "normalize_then_sum"}),
    ):
        theirs, _, _ = trained(tmp_path / "theirs", **settings)
        ours, trainer, signal = trained(tmp_path / "ours", preset(name).pipeline, **settings)
        assert len(ours) == len(theirs) == 2
        assert float(theirs[0].abs().max()) > 0.1
        for our, their in zip(ours, theirs, strict=True):
            assert_close(our, their, rtol=1e-4, atol=1e-4)
        logged = trainer.state.log_history[0]
        assert logged["signal/rewards/odd/mean"] == pytest.approx(logged["rewards/odd/mean"], rel=1e-4)
        assert list(trainer._logs["advantages"])[-8:] == pytest.approx(signal.last.advantages.tolist())


class Fake:
    """A trainer on the second of two processes: each has four completions, two prompts by two, two rewards."""

    def __init__(self):
        self.accelerator = SimpleNamespace(process_index=1)
        self.model = SimpleNamespace(training=True)
        self.num_generations = 2
        self.reward_func_names, self.reward_weights = ["a", "b"], torch.tensor([1.0, 0.5])
        self.table = torch.tensor([[1.0, 2.0], [3.0, 2.0], [0.0, 4.0], [0.0, 0.0], [5.0, 0.0], [1.0, 0.0]])
        self.table = torch.cat([self.table, torch.tensor([[2.0, 2.0], [2.0, 2.0]])])

    def _calculate_rewards(self):
        return self.table

    def _generate_and_score_completions(self):
        self._calculate_rewards()
        return {"advantages": torch.full((4,), 9.0), "prompt_ids": "kept"}


def test_a_process_keeps_its_own_rows_of_all_completions():
    """Sums 2, 4 | 2, 0 | 5, 1 | 3, 3 minus the mean of each prompt: rows 5 to 8 are 2, -2, 0, 0."""
    trainer = Fake()
    signal = attach(trainer, preset("dr_grpo").pipeline)
    output = trainer._generate_and_score_completions()
    assert output["advantages"].tolist() == [2.0, -2.0, 0.0, 0.0]
    assert output["prompt_ids"] == "kept"
    assert signal.last.advantages.tolist() == [-1.0, 1.0, 1.0, -1.0, 2.0, -2.0, 0.0, 0.0]
    signal.detach()
    assert trainer._generate_and_score_completions()["advantages"].tolist() == [9.0] * 4


def test_running_statistics_stand_still_in_evaluation():
    trainer = Fake()
    running = PipelineConfig(transforms=(ZScore(scope="running"),), base=preset("dr_grpo").pipeline.base)
    signal = attach(trainer, running)
    trainer._generate_and_score_completions()
    before = {name: torch.as_tensor(value).clone() for name, value in signal.state_dict().items()}
    assert before
    trainer.model.training, trainer.num_generations_eval = False, 1
    trainer.table = trainer.table + 50
    trainer._generate_and_score_completions()
    after = signal.state_dict()
    assert all(torch.equal(value, torch.as_tensor(after[name])) for name, value in before.items())
    other = attach(Fake(), running)
    other.load_state_dict(signal.state_dict())
    assert other.state_dict().keys() == before.keys()


def test_what_is_refused(monkeypatch):
    with pytest.raises(AlignError, match="no GRPOTrainer"):
        attach(SimpleNamespace(), preset("grpo").pipeline)
    with pytest.raises(AlignError, match="sees rewards and groups, nothing else"):
        attach(Fake(), PipelineConfig(base=Gae()))
    trainer = Fake()
    trainer._generate_and_score_completions = lambda: {"advantages": torch.zeros(4)}  # no rewards on the way
    attach(trainer, preset("grpo").pipeline)
    with pytest.raises(AlignError, match="makes advantages in another way"):
        trainer._generate_and_score_completions()
    monkeypatch.setattr(adapter, "version", lambda name: "0.29.1")
    with pytest.raises(AlignError, match=r"TRL 0\.29\.1 is installed, 1\.16 or later is needed"):
        adapter.check_version()


def imports(path):
    """Names of the modules that a file imports anywhere in it; nothing of files that cannot import TRL."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if "trl" in text else ():
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def test_nothing_else_imports_trl():
    folders = [ROOT / name for name in ("align", "diffusion", "preference", "benchmarks", "tests")]
    files = [path for folder in folders if folder.is_dir() for path in folder.rglob("*.py")]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)) for path in files if any(n.split(".")[0] == "trl" for n in imports(path))}
    # Two tests read single losses of TRL's own classes, where no trainer runs.
    assert found == {"preference/trl.py", "tests/preference/losses/test_against_trl.py"}
