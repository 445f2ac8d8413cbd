"""DPO and SimPO: TRL's trainers, this suite and a bare loop on the same weights and pairs, side by side.

    python benchmarks/preference.py                              the table: 4 pairs, prompt/answer 256/64 and 96/96
    python benchmarks/preference.py --lengths 256/64 --steps 8
    python benchmarks/preference.py --device cuda --layers 16 --width 2048                     0.9 B, all weights
    python benchmarks/preference.py --device cuda --layers 32 --width 4096 --lora 16 --dtype bfloat16          6.6 B

Every contestant runs in a process of its own, one after the other: the same random Llama (8 layers x 384, vocabulary
49,152 unless asked otherwise), the same pairs in the same order, AdamW with the same rate, clipping at 1, the reference
computed before the first step. A time counts only if the losses of all steps agree with those of TRL. Printed: seconds
from the end of a step to the end of the next one (median, without the first), the peak of the process's memory (on CUDA
that of the allocator), and both as ratios. Nothing is compared with a stored number.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAIRS, RATE, BETA, RATIO = 4, 1e-4, 0.1, 0.5
VOCABULARY = 49_152
TOLERANCE = {"cpu": 2e-3, "cuda": 3e-2}
"""Largest difference of a loss that counts as rounding: float32 on the processor, bfloat16 autocast on CUDA."""
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""What adapters go on."""
METHODS = {"dpo": ("trl", "suite", "bare"), "simpo": ("trl", "suite", "bare")}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all contestants have in common."""

    method: str
    prompt: int
    answer: int
    steps: int
    layers: int
    width: int
    device: str
    lora: int = 0
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one contestant says."""

    losses: list[float]
    seconds: float
    peak: float


def build_model(setting: Setting) -> Any:
    """A random Llama, the same in every process."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    heads = max(1, setting.width // 64)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=setting.width,
        intermediate_size=setting.width * 8 // 3,
        num_hidden_layers=setting.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model.to(setting.device, getattr(torch, setting.dtype))


def with_adapters(setting: Setting) -> Any:
    """The model as peft's users adapt it; the model itself without `--lora`."""
    model = build_model(setting)
    if not setting.lora:
        return model
    from peft import LoraConfig, get_peft_model

    options = {"target_modules": LAYERS, "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(r=setting.lora, lora_alpha=2 * setting.lora, **options))
    draw_adapters(adapted)
    return adapted


def draw_adapters(model: Any) -> None:
    """The same A of every adapter, whoever made it; B is 0."""
    import torch

    for name, weight in model.named_parameters():
        if "lora_A" in name:
            place = name[name.index("layers.") :]
            random = torch.Generator().manual_seed(zlib.crc32(place.encode()))
            values = torch.randn(weight.shape, generator=random) / weight.shape[1] ** 0.5
            weight.data.copy_(values)


def token_rows(setting: Setting) -> list[dict[str, list[int]]]:
    """Prompts and answers of exactly the asked lengths; every answer ends with the end token."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()

    def answer() -> list[int]:
        return [*ids(setting.answer - 1), 2]

    count = PAIRS * setting.steps
    return [{"prompt": ids(setting.prompt), "chosen": answer(), "rejected": answer()} for _ in range(count)]


class Clock:
    """Moments at which steps end, once the device has done everything."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: list[float] = []

    def step_ends(self) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def result(self, losses: list[float]) -> Result:
        import torch

        spans = [end - start for start, end in zip(self.ends, self.ends[1:])]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self.device == "cuda":
            peak = torch.cuda.max_memory_allocated()
        return Result(losses=losses, seconds=statistics.median(spans), peak=peak / 2**30)


def run_trl(setting: Setting) -> Result:
    """TRL's own trainer: benchmarks/preference_trl.py."""
    from importlib.util import module_from_spec, spec_from_file_location

    found = spec_from_file_location("preference_trl", Path(__file__).with_name("preference_trl.py"))
    assert found is not None  # the file beside this one
    assert found.loader is not None
    theirs = module_from_spec(found)
    found.loader.exec_module(theirs)
    clock = Clock(setting.device)
    rows = token_rows(setting)
    constants = {"pairs": PAIRS, "rate": RATE, "beta": BETA, "ratio": RATIO, "vocabulary": VOCABULARY}
    return clock.result(theirs.train(with_adapters(setting), rows, setting, clock.step_ends, constants))


def _stored(setting: Setting) -> Any:
    import torch

    from preference.data import DataReport
    from preference.stored_pairs import StoredPairs
    from preference.tokens import TokenPairs

    rows, count = token_rows(setting), PAIRS * setting.steps
    data = TokenPairs(
        rows=list(range(count)),
        prompts=[""] * count,
        columns={},
        report=DataReport(source="random", read=count, used=count),
        tokenizer="random",
        chosen=[""] * count,
        rejected=[""] * count,
        **{f"{name}_ids": [torch.tensor(row[name]) for row in rows] for name in ("prompt", "chosen", "rejected")},
    )
    return StoredPairs(data=data)


def run_suite(setting: Setting) -> Result:
    """The suite's own loop, run folder, metrics file and all."""
    from dataclasses import replace

    import torch

    from align.config.shared import LoraConfig, OptimizerConfig, OutputConfig, TrainingConfig
    from align.engine.adapters import Policy
    from align.engine.distributed import Processes, start_accelerator
    from align.engine.folder import RunFolder
    from align.engine.loop import train
    from align.engine.run import Run
    from align.engine.settings import RunSettings
    from preference.config import DpoConfig, SimpoConfig
    from preference.dpo import Dpo
    from preference.forward import SequenceScorer, plan_layout
    from preference.pair_method import PairParts
    from preference.reference import ReferenceTable, complete
    from preference.sampler import StepPairs
    from preference.simpo import Simpo

    precision = "bf16" if setting.device == "cuda" else "no"
    accelerator = start_accelerator(precision)
    processes, clock, losses = Processes(accelerator), Clock(setting.device), []
    pairs = _stored(setting)
    if setting.lora:
        lora = LoraConfig(rank=setting.lora, alpha=2.0 * setting.lora)
        policy = Policy.lora(build_model(setting), lora, LAYERS, seed=0)
        draw_adapters(policy.module)
    else:
        policy = Policy.full(build_model(setting))
    plan = plan_layout(policy.module, [pairs.groups(torch.arange(PAIRS))], longest=pairs.data.longest())
    print(f"layout: {plan.reason}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        output = OutputConfig(directory=folder, name="run", trackers=(), images_every=0)
        training = TrainingConfig(steps=setting.steps, micro_batch_size=PAIRS, mixed_precision=precision, ema=None)
        optimizer = OptimizerConfig(learning_rate=RATE, weight_decay=0.0)
        settings = RunSettings(optimizer=optimizer, training=training, output=output)
        run = Run(accelerator, RunFolder.create(output, default_name="run", processes=processes), policy, settings)
        scorer = SequenceScorer(policy, plan)
        if setting.method == "dpo":
            everything = {"scorer": scorer, "processes": processes, "batch_size": PAIRS}
            table = complete(ReferenceTable.empty(), pairs.groups, torch.arange(len(pairs)), **everything)
            pairs = replace(pairs, reference=table)

        def in_order(step: int) -> StepPairs:
            rows = torch.arange((step - 1) * PAIRS, step * PAIRS)
            return StepPairs(rows=rows, index=torch.arange(PAIRS), updates=1)

        parts = PairParts(pairs=pairs, sampler=in_order, scorer=scorer, policy=policy)  # type: ignore[arg-type]
        made: Any = Dpo(DpoConfig(beta=BETA), parts)
        if setting.method == "simpo":
            made = Simpo(SimpoConfig(beta=2.0, gamma_beta_ratio=RATIO), parts)
        _watch(made, clock, losses)
        train(run, made)
    return clock.result(losses)


def _watch(method: Any, clock: Clock, losses: list[float]) -> None:
    """Loss and end of each step."""
    whole, after = method.loss, method.after_step

    def loss(micro: Any) -> Any:
        out = whole(micro)
        losses.append(float(out.loss.detach()))
        return out

    def after_step(step: int) -> Any:
        clock.step_ends()
        return after(step)

    method.loss, method.after_step = loss, after_step


def run_bare(setting: Setting) -> Result:
    """Twenty-five lines around the layout and the log-probabilities: what the loop around them may cost is the rest."""
    import torch

    from preference.layout import layout_support, model_inputs, shared
    from preference.logprobs import pool_flat, score_tokens
    from preference.logprobs.split import split_model
    from preference.losses import dpo, simpo

    clock, losses, pairs = Clock(setting.device), [], _stored(setting)
    model = with_adapters(setting).eval()
    split = split_model(model)
    support = layout_support(split.trunk, longest=pairs.data.longest())
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)

    def answers(step: int, average: bool) -> Any:
        layout = shared(pairs.groups(torch.arange(step * PAIRS, (step + 1) * PAIRS))).to(setting.device)
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.device == "cuda"):
            hidden = layout.predicting(split.hidden_states(model_inputs(layout, support)))
            log_probs = score_tokens(hidden, split.head, layout.labels).log_probs
        return pool_flat(log_probs, layout.sequence_ids, layout.sequences, average).view(-1, 2).unbind(1)

    with torch.no_grad():
        reference = [answers(step, False) for step in range(setting.steps)] if setting.method == "dpo" else []
    for step in range(setting.steps):
        if setting.method == "dpo":
            loss = dpo(*answers(step, False), *reference[step], beta=BETA).losses.mean()
        else:
            loss = simpo(*answers(step, True), beta=2.0, gamma_beta_ratio=RATIO).losses.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        clock.step_ends()
    return clock.result(losses)


CONTESTANTS: dict[str, Callable[[Setting], Result]] = {"trl": run_trl, "suite": run_suite, "bare": run_bare}


def in_a_process(name: str, setting: Setting) -> Result:
    """One contestant, alone."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "TRL_EXPERIMENTAL_SILENCE": "1"}
    environment |= {"ACCELERATE_USE_CPU": "true"} if setting.device == "cpu" else {}
    # -P: the folder of this file is not searched, where `preference` would be this file.
    command = [sys.executable, "-P", __file__, "--child", name, json.dumps(asdict(setting))]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Result(**json.loads(done.stdout.strip().splitlines()[-1]))


def agree(results: dict[str, Result], device: str) -> float:
    """Largest difference between a loss and TRL's.

    Raises:
        SystemExit: it is more than rounding: then no time of this setting counts.
    """
    expected = results["trl"].losses
    gap = 0.0
    for name, result in results.items():
        if len(result.losses) != len(expected):
            raise SystemExit(f"{name} made {len(result.losses)} losses, TRL {len(expected)}: no time counts.")
        gap = max(gap, *(abs(a - b) for a, b in zip(result.losses, expected, strict=True)))
    if gap > TOLERANCE[device]:
        lines = "\n".join(f"  {name}: {result.losses}" for name, result in results.items())
        raise SystemExit(f"losses differ by {gap:.1e}, so no time counts:\n{lines}")
    return gap


def report(setting: Setting) -> None:
    """Run all contestants of a setting and print their table."""
    results = {name: in_a_process(name, setting) for name in METHODS[setting.method]}
    gap = agree(results, setting.device)
    trl, bare = results["trl"], results["bare"]
    shape = f"{PAIRS} pairs, prompt {setting.prompt}, answers {setting.answer}"
    print(f"\n{setting.method}, {shape}; losses agree to {gap:.0e}")
    print(f"{'':8}{'s/step':>9}{'TRL / it':>10}{'it / bare':>11}{'peak GiB':>10}{'of TRL':>8}")
    for name, result in results.items():
        print(
            f"{name:8}{result.seconds:9.3f}{trl.seconds / result.seconds:9.2f}x{result.seconds / bare.seconds:10.2f}x"
            f"{result.peak:10.2f}{result.peak / trl.peak:8.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", default=["256/64", "96/96"], help="prompt/answer, in tokens")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--steps", type=int, default=6, help="the first is not counted")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=384, help="a multiple of 64")
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters; 0 = train all weights")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of frozen weights")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, text = args.child
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CONTESTANTS[name](Setting(**json.loads(text)))
        print(json.dumps(asdict(result)))
        return
    for method in args.methods:
        for lengths in args.lengths:
            prompt, answer = (int(part) for part in lengths.split("/"))
            common = {"steps": args.steps, "layers": args.layers, "width": args.width, "device": args.device}
            common |= {"lora": args.lora, "dtype": args.dtype}
            report(Setting(method=method, prompt=prompt, answer=answer, **common))


if __name__ == "__main__":
    main()
