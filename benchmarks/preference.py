"""DPO and SimPO: TRL's trainers, this suite and a bare loop on the same weights and pairs, side by side.

    python benchmarks/preference.py                              the table: 4 pairs, prompt/answer 256/64 and 96/96
    python benchmarks/preference.py --lengths 256/64 --steps 8
    python benchmarks/preference.py --device cuda --layers 16 --width 2048

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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAIRS, RATE, BETA, RATIO = 4, 1e-4, 0.1, 0.5
VOCABULARY = 49_152
TOLERANCE = {"cpu": 2e-3, "cuda": 3e-2}
"""Largest difference of a loss that counts as rounding: float32 on the processor, bfloat16 autocast on CUDA."""
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


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one contestant says."""

    losses: list[float]
    seconds: float
    peak: float


def build_model(setting: Setting) -> Any:
    """A random Llama in float32, the same in every process."""
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
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(setting.device)


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


def word_tokenizer() -> Any:
    """One word, one token: `w17` is id 17. So TRL's own tokenising gives the lengths that were asked for."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(3, VOCABULARY)}
    special = {"<pad>": 0, "<s>": 1, "</s>": 2}  # no begin token: CPOTrainer would put one in front of every prompt
    tokenizer = Tokenizer(models.WordLevel({**special, **words}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def run_trl(setting: Setting) -> Result:
    """DPOTrainer, or the experimental CPOTrainer, as their users run them; the order of the pairs is fixed."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    clock, losses = Clock(setting.device), []

    class Ends(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            clock.step_ends()

    def text(ids: list[int], start: str) -> str:
        return start + " ".join("</s>" if token == 2 else f"w{token}" for token in ids)

    texts = token_rows(setting)
    rows = [{name: text(ids, "" if name == "prompt" else " ") for name, ids in row.items()} for row in texts]
    trainer_class, config_class, options = _trl_classes(setting)
    with tempfile.TemporaryDirectory() as folder:
        args = config_class(
            output_dir=folder,
            per_device_train_batch_size=PAIRS,
            max_steps=setting.steps,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_length=setting.prompt + setting.answer,
            logging_strategy="no",
            report_to="none",
            save_strategy="no",
            use_cpu=setting.device == "cpu",
            bf16=setting.device == "cuda",
            gradient_checkpointing=False,
            disable_tqdm=True,
            **options,
        )
        trainer = trainer_class(
            model=build_model(setting),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=word_tokenizer(),
            callbacks=[Ends()],
        )
        trainer._get_train_sampler = SequentialSampler
        whole = trainer.compute_loss

        def recorded(*args: Any, **kwargs: Any) -> Any:
            out = whole(*args, **kwargs)
            losses.append(float((out[0] if isinstance(out, tuple) else out).detach()))
            return out

        trainer.compute_loss = recorded
        trainer.train()
    return clock.result(losses)


def _trl_classes(setting: Setting) -> tuple[Any, Any, dict[str, Any]]:
    from preference.trl import cpo_trainer, dpo_trainer

    if setting.method == "dpo":
        return *dpo_trainer(), {"beta": BETA, "precompute_ref_log_probs": True}
    options = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 2.0 * RATIO}
    return *cpo_trainer(), options


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

    from align.config.shared import OptimizerConfig, OutputConfig, TrainingConfig
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
    model = build_model(setting).eval()
    split = split_model(model)
    support = layout_support(split.trunk, longest=pairs.data.longest())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)

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
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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
            report(Setting(method=method, prompt=prompt, answer=answer, **common))


if __name__ == "__main__":
    main()
