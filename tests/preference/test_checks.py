"""Contradictions of a language-model run, before anything heavy is loaded; and the plan's arithmetic."""

import json
import subprocess
import sys
import types

import pytest
import torch

from align.config.errors import ConfigError
from align.config.load import load_config, save_config
from align.engine.epochs import process_rows
from preference import losses
from preference.arithmetic import pairs_per_update, precomputes, times_with_interval
from preference.checks import contradictions
from preference.config import CausalLm, DpoConfig, PairsConfig, PreferenceRun, SimpoConfig
from preference.config.losses import LOSS_OPTIONS, LossKind
from preference.memory import guess_memory, kept_numbers, lora_parameters, read_shapes
from preference.plan import plan

from . import tokenizers

TEXT = """\
branch: preference
model: {path: model}
data: {train: train.jsonl, heldout: heldout.jsonl, pairs_per_step: 4, max_prompt_length: 16, max_length: 32}
training: {steps: 6, micro_batch_size: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A config, its pairs, and a miniature."""
    folder = tmp_path_factory.mktemp("run")
    tokenizers.model_folder(folder / "model", "llama")
    for name, count in (("train", 8), ("heldout", 3)):
        rows = [{"prompt": f"{name} {i}", "chosen": " a", "rejected": " b"} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.yaml").write_text(TEXT)
    return folder


@pytest.fixture
def problems(folder):
    """Function of overrides -> the problems that are found, as one text; empty if there is none."""

    def find(*overrides, processes=None):
        try:
            load_config(folder / "run.yaml", overrides, processes=processes)
        except ConfigError as error:
            return str(error)
        return ""

    return find


# --- contradictions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        ([], []),
        (["recipe=nothing"], ["there is no shipped config `nothing`"]),
        (["model.path=./none"], ["there is no such folder or file"]),
        (["model.chat_template=none.jinja"], ["expects a Jinja file"]),
        (["model.quantization=4bit"], []),
        (["model.quantization=4bit", "model.lora=null"], ["quantised weights cannot be", "Use `lora`"]),
        (["model.quantization=8bit", "model.adapter=./model"], ["rounds it away and moves the reference"]),
        (["model.dtype=bfloat16"], ["`mixed_precision: no` converts neither"]),
        (["data.max_prompt_length=32"], ["the answer of a long prompt would have none", "at most 31"]),
        (["data.pairs_per_step=9"], ["a step takes 9 different pairs", "has 8"]),
        (["data.heldout=train.jsonl"], ["training and held-out pairs are the same file"]),
        (["data.train=none.jsonl"], ["`data.train`: expected rows at"]),
        (["data.chosen=good"], ["has no column `good`"]),
        (["training.updates_per_rollout=3"], ["4 pairs a step are to serve 3 equal updates", "multiple of 3"]),
        (["optimizer.warmup_updates=6"], ["the warm-up takes 6 updates"]),
        (["output.name=a/b"], ["expects the name of a folder"]),
        (["evaluation.rewards=[{function: length}]"], ["score answers, but none are sampled"]),
        (["data.heldout=null", "evaluation.every=2"], ["neither held-out pairs nor prompts to answer"]),
        (["data.heldout=null", "evaluation.generate={}"], ["there are no prompts and no held-out pairs"]),
        (["evaluation.generate={seeds: 2}"], ["at temperature 0 the likeliest token", "`seeds` would change nothing"]),
        (["evaluation.generate={top_p: 1.5, temperature: 1}"], ["a share of probability, found 1.5"]),
        (["evaluation.generate={prompts: none.jsonl}"], ["expected rows at"]),
        (["model.lora=null", "reference.precompute=false"], ["no copy of the weights from before training is kept"]),
        (["model.lora=null", "reference.precompute=false", "reference.keep_copy=true"], []),
        (["reference.keep_copy=true"], ["adapters are trained: switched off they leave the reference"]),
        (["algorithm.kind=simpo", "reference.precompute=true"], ["`simpo` needs no reference here"]),
        (["algorithm.reference_weight=0", "reference.cache=cache"], ["`dpo` needs no reference here"]),
    ],
)
def test_contradictions(problems, overrides, messages):
    found = problems(*overrides)
    assert bool(found) == bool(messages), found
    assert all(message in found for message in messages), found


def test_processes_without_a_pair(problems):
    assert "on 5 processes: each process needs one of them" in problems(processes=5)
    assert not problems(processes=3)


def test_the_table_of_losses_is_the_one_that_computes():
    """In the same order, so that messages agree; and the type of the setting names them all."""
    assert list(LOSS_OPTIONS) == list(losses.LOSSES)
    for name, entry in losses.LOSSES.items():
        known = LOSS_OPTIONS[name]
        assert (known.smoothing, known.divergence, known.lengths, known.per_pair) == (
            entry.smoothing,
            entry.divergence,
            entry.lengths,
            entry.per_pair,
        ), name
    assert set(LossKind.__args__) == set(LOSS_OPTIONS)


def call(config):
    """The loss with the settings of a run."""
    pairs = torch.zeros(2)
    if isinstance(config, SimpoConfig):
        margin = {"gamma": config.gamma, "gamma_beta_ratio": config.gamma_beta_ratio}
        losses.simpo(pairs, pairs, beta=1.0, kind=config.loss, label_smoothing=config.label_smoothing, **margin)
        return
    lengths = {f"{side}_lengths": torch.ones(2) for side in ("chosen", "rejected")} if config.reads_lengths() else {}
    losses.dpo(
        *[pairs] * 4,
        beta=config.beta,
        kind=config.mix(),
        label_smoothing=config.label_smoothing,
        divergence=config.divergence,
        weights=pairs if config.wpo else None,
        **lengths,
    )


CONFLICTS = [
    DpoConfig(loss={}),
    DpoConfig(loss="hinge", label_smoothing=0.1),
    DpoConfig(loss={"sigmoid": 1.0, "apo_zero": 0.5}, label_smoothing=0.1),
    DpoConfig(loss="apo_down", divergence="js"),
    DpoConfig(loss="aot", wpo=True),
    DpoConfig(loss="robust", label_smoothing=0.5),
    DpoConfig(loss="exo_pair"),
    SimpoConfig(gamma=1.0, gamma_beta_ratio=0.5),
    SimpoConfig(loss="hinge", label_smoothing=0.1),
]


@pytest.mark.parametrize("algorithm", CONFLICTS, ids=str)
def test_a_conflict_is_told_in_the_words_of_the_loss(algorithm):
    """What the loss would say in the middle of a run is said before it."""
    found = list(contradictions(PreferenceRun(algorithm=algorithm, model=CausalLm(path="a/b"), data=HUB)))
    said = [f"{problem.message} {problem.way_out}".strip() for problem in found]
    with pytest.raises(ValueError) as caught:
        call(algorithm)
    assert said == [str(caught.value)]


HUB = PairsConfig(train="owner/pairs", heldout=None)


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (DpoConfig(loss="ipo", divergence="js"), "do not go together"),
        (DpoConfig(loss={"ipo": 1.0, "sigmoid_norm": 1.0}, ipo_average=False), "`ipo` is to be summed"),
        (DpoConfig(alpha=0.3), "`alpha` belongs to `divergence: alpha`"),
        (DpoConfig(discopop_temperature=0.1), "belongs to `loss: discopop`"),
        (DpoConfig(ipo_average=False), "belongs to `loss: ipo`"),
    ],
)
def test_more_conflicts(algorithm, message):
    found = list(contradictions(PreferenceRun(algorithm=algorithm, model=CausalLm(path="a/b"), data=HUB)))
    assert [message in problem.message for problem in found] == [True]


@pytest.mark.parametrize("kind", list(LOSS_OPTIONS))
def test_every_loss_runs_with_its_settings(kind):
    smoothing = 0.1 if kind == "exo_pair" else 0.0
    config = DpoConfig(loss=kind, label_smoothing=smoothing)
    assert not list(contradictions(PreferenceRun(algorithm=config, model=CausalLm(path="a/b"), data=HUB)))
    call(config)


def test_margin_of_simpo():
    assert SimpoConfig().margin() == {"gamma_beta_ratio": 0.5}
    assert SimpoConfig(gamma_beta_ratio=0.3).margin() == {"gamma_beta_ratio": 0.3}
    assert SimpoConfig(gamma=0.0).margin() == {"gamma": 0.0}


def test_wrong_types(problems):
    assert "algorithm.loss" in problems("algorithm.loss=sigmod")
    assert "algorithm.beta" in problems("algorithm.beta=0")
    assert "Did you mean `max_length`" in problems("data.max_lenght=3")


# --- reading and saving -----------------------------------------------------------------------------------------------


def test_the_saved_config_is_runnable_from_anywhere(folder, tmp_path):
    config = load_config(folder / "run.yaml", ["algorithm.loss={sigmoid: 0.8, bco_pair: 0.2}"])
    assert config.algorithm.mix() == {"sigmoid": 0.8, "bco_pair": 0.2}
    assert config.data.train == str(folder / "train.jsonl")
    assert config.model.path == str(folder / "model")
    assert load_config(save_config(config, tmp_path / "config.yaml")) == config


def test_hub_ids_and_gguf_files_keep_their_names(folder):
    config = load_config(folder / "run.yaml", ["data.train=owner/pairs", "model.path=mini.gguf"], check=False)
    assert config.data.train == "owner/pairs"
    assert config.model.path == str(folder / "mini.gguf")


def test_checks_and_plan_leave_torch_alone(folder):
    code = (
        "import sys\nfrom align.config.load import load_config\nfrom preference.plan import plan\n"
        f"plan(load_config({str(folder / 'run.yaml')!r}))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- arithmetic, plan, memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pairs", "updates", "world"), [(8, 1, 3), (12, 2, 2), (10, 2, 3)])
def test_pairs_of_a_process_are_those_of_the_sampler(pairs, updates, world):
    config = PreferenceRun(
        data=PairsConfig(pairs_per_step=pairs), training=type(PreferenceRun().training)(updates_per_rollout=updates)
    )
    counts = [len(process_rows(pairs, updates, rank, world)) // updates for rank in range(world)]
    assert pairs_per_update(config, world) == (min(counts), max(counts))


def test_reference_once_where_pairs_are_met_again():
    """100 steps of 32 pairs: 3,200 reads of 4,000 pairs meet none again, of 3,000 some."""
    config = PreferenceRun()
    assert [precomputes(config, pairs) for pairs in (4000, 3000)] == [False, True]
    assert not precomputes(PreferenceRun(algorithm=SimpoConfig()), 10)
    assert times_with_interval(10, 5) == 3
    assert times_with_interval(10, 4) == 4


def test_plan(folder):
    config = load_config(folder / "run.yaml", ["evaluation={every: 3, generate: {max_new_tokens: 9}}"])
    made = plan(config, 2)
    rows = {row.label: (row.value, row.note) for section in made.sections for row in section.rows}
    assert made.title == f"dpo on {folder / 'model'}, 6 steps"
    assert rows["loss"] == ("sigmoid", "beta 0.1")
    assert rows["processes"] == ("2", "2 pairs each in an update")
    assert rows["micro-batches"][1].startswith("in each update, of at most 2 pairs and 128 tokens")
    assert rows["pairs to train on"] == ("24", "6 steps x 4, 3 times through the 8")
    assert rows["evaluations"] == ("3", f"of 3 pairs of {folder / 'heldout.jsonl'}")
    assert rows["reference"] == ("0", "2 for each pair once before training, kept in the run folder")
    assert rows["answers in each"][1] == "at most 64 prompts x 1, at most 9 tokens at temperature 0"
    simpo = plan(load_config(folder / "run.yaml", ["algorithm={kind: simpo, sft_weight: 0.5}"]))
    what, _, passes, *_ = ({row.label: row.value for row in section.rows} for section in simpo.sections)
    assert what["loss"] == "sigmoid, gamma_beta_ratio 0.5 + 0.5 sft on chosen answers"
    assert (passes["reference"], passes["together"]) == ("0", "6")


def test_the_plan_of_epochs_has_their_steps(folder):
    """Eight pairs, 1.25 times, four a step: 10 pairs, three steps."""
    made = plan(load_config(folder / "run.yaml", ["training.epochs=1.25", "evaluation.every=2"]))
    rows = {row.label: (row.value, row.note) for section in made.sections for row in section.rows}
    assert made.title.endswith(", 3 steps")
    assert rows["pairs to train on"] == ("12", "3 steps x 4, 1.5 times through the 8")
    assert rows["evaluations"][0] == "3"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_parameters_are_counted_exactly(tmp_path, family):
    from align.config.shared import LoraConfig
    from preference.models import load_causal_lm

    tokenizers.model_folder(tmp_path, family)
    model = load_causal_lm(CausalLm(path=str(tmp_path)))
    shapes = read_shapes(tmp_path)
    for targets in ("attention", "feed_forward", "all_linear"):
        model = load_causal_lm(CausalLm(path=str(tmp_path)))
        policy = model.policy(LoraConfig(rank=3, targets=targets), seed=0)
        assert lora_parameters(shapes, 3, targets) == policy.parameter_count()


def test_memory(folder):
    """Adam in float32: 12 bytes for each trained number; all weights in float32 once all are trained."""
    config = load_config(folder / "run.yaml", ["model.lora=null", "reference.precompute=true"])
    memory = guess_memory(config)
    count = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in read_shapes(folder / "model").values())
    assert (memory.network, memory.trained, memory.weights, memory.optimizer) == (count, count, 4 * count, 12 * count)
    assert memory.copies == 0
    assert guess_memory(PreferenceRun(model=CausalLm(path="owner/name"))) is None
    recomputed = guess_memory(load_config(folder / "run.yaml", ["training.gradient_checkpointing=true"]))
    assert recomputed.activations < guess_memory(load_config(folder / "run.yaml")).activations


def test_kept_numbers_against_a_count(folder):
    """What autograd really keeps of the trunk of a Llama, all weights trained: the guess is within a fifth of it.

    One layer at a time has, besides, what the others compute again.
    """
    from transformers import AutoModelForCausalLM

    from preference.layout import layout_support
    from preference.layout.lean import lean
    from preference.layout.recipes import Kept, pack

    trunk = AutoModelForCausalLM.from_pretrained(folder / "model").train().model
    support = layout_support(trunk)
    kept: dict[int, int] = {}
    weights = {weight.data_ptr() for weight in trunk.parameters()}

    def note(tensor):
        packed = pack(tensor)
        if isinstance(packed, Kept) and tensor.data_ptr() not in weights and tensor.is_floating_point():
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return packed

    tokens = 64
    with lean(trunk, support.lean_layers, pack=note):
        hidden = trunk(input_ids=torch.ones(1, tokens, dtype=torch.int64), use_cache=False).last_hidden_state
    assert isinstance(hidden, torch.Tensor)
    settings = json.loads((folder / "model" / "config.json").read_text())
    again = 4 * settings["hidden_size"] + 2 * settings["intermediate_size"]
    guess = kept_numbers(types.MappingProxyType(settings), checkpointed=False) * tokens
    assert guess == pytest.approx(sum(kept.values()) + again * tokens, rel=1 / 5)
