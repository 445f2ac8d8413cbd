"""Runs of the toy method, and of real model classes, for tests/runs/test_engine_sharded.py.

    python engine_sharded.py '{"directory": "/somewhere", "resume": [], "networks": true}'

One launch does everything that needs its processes: starting them is what takes the time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import engine_toy
import torch
from accelerate import Accelerator
from engine_networks import KINDS
from safetensors.torch import save_file

from align.engine import fsdp
from align.engine.adapters import Policy
from align.engine.distributed import start_accelerator
from align.engine.loop import train
from align.engine.sharding import is_sharded, whole

SCENARIOS = {
    "deep": {"adapter": "deep", "updates_per_rollout": 1, "micro_batch_size": 1, "max_grad_norm": 0.5},
    "lora": {"adapter": "lora", "updates_per_rollout": 2, "micro_batch_size": 2, "max_grad_norm": 0.05},
}


def settings(directory: str | Path, scenario: str, **more: object) -> engine_toy.ToySettings:
    """A run that uses everything: reference, lagged policy, moving average, clipping, uneven rows."""
    usual = {"steps": 4, "pull": True, "uneven": True, "global_noise": False, "images_every": 0}
    chosen = {**usual, **SCENARIOS[scenario], **more}
    return engine_toy.ToySettings(directory=f"{directory}/{scenario}", **chosen)  # type: ignore[arg-type]


def run_scenario(directory: str | Path, scenario: str, **more: object) -> None:
    """Train, and export the averaged weights as a branch does."""
    run, toy = engine_toy.start(settings(directory, scenario, **more))
    spread = [is_sharded(weight) for weight in (*run.policy.state_dict().values(), *run.ema.weights.values())]
    assert set(spread) == {os.environ.get("ACCELERATE_USE_FSDP") == "true"}
    train(run, toy)
    with run.averaged_weights(), run.policy.assembled(keep=run.processes.is_main) as module:
        if run.processes.is_main:
            assert type(module) is engine_toy.Deep
            save_file({name: w.contiguous() for name, w in module.state_dict().items()}, run.folder.path / "export.st")
            assert {w.shape for w in run.policy.state_dict().values()} == {w.shape for w in run.ema.weights.values()}
    run.processes.barrier()


def check_networks(directory: Path, accelerator: Accelerator) -> None:
    """Spread networks of every kind give the output and the gradients of the same network on one process, and are
    saved as it is. Both processes have the same inputs, so the mean gradient is everybody's.

    Full weights differ in the order of float32 sums; the U-Net sums its branches in another order, which in bfloat16
    is 2 % where bfloat16 itself is off by 17 %.
    """
    for name, kind in KINDS.items():
        for adapter in ("full", "half"):
            alone, spread = kind.policy(adapter), kind.policy(adapter)
            expected = kind.run(alone.network, adapter)
            expected.square().sum().backward()
            spread.enable_gradient_checkpointing()
            if (name, adapter) == ("sd3", "half"):
                spread.compile("eager")
            spread.prepare(accelerator)
            with torch.no_grad():
                assert torch.equal(kind.run(spread.module, adapter), expected)
            found = kind.run(spread.network, adapter)
            assert torch.equal(found, expected)
            found.square().sum().backward()
            for key, weight in alone.trainable_parameters().items():
                gradient = spread.trainable_parameters()[key].grad
                assert (weight.grad is None) == (gradient is None), (name, key)
                if weight.grad is not None:
                    distance = (whole(gradient) - weight.grad).norm() / weight.grad.norm().clamp_min(1e-6)
                    assert distance < (0.05 if adapter == "half" else 1e-5), (name, adapter, key, distance)
            check_export(directory / name, alone, spread, main=accelerator.is_main_process and adapter == "full")


def check_export(folder: Path, alone: Policy, spread: Policy, *, main: bool) -> None:
    """What the library writes and reads again is what it writes without FSDP2."""
    with spread.assembled(keep=main) as module:
        if main:
            module.save_pretrained(folder)
            again = type(alone.module).from_pretrained(folder)
            for key, weight in alone.module.state_dict().items():
                assert torch.equal(again.state_dict()[key], weight), key
    assert {is_sharded(weight) for weight in spread.state_dict().values()} == {True}


def check_parts(accelerator: Accelerator) -> None:
    """A language model's body and head called one by one, with tied weights, give the gradients of the whole pass.

    float32 sums of a head called in two pieces.
    """

    def parts(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        return torch.cat([model.lm_head(hidden[:, :3]), model.lm_head(hidden[:, 3:])], 1)

    alone, spread = KINDS["qwen"].policy("full"), KINDS["qwen"].policy("full")
    spread.prepare(accelerator)
    KINDS["qwen"].run(alone.network, "full").square().sum().backward()
    spread.through(parts, torch.arange(6).reshape(1, 6)).square().sum().backward()
    for key, weight in alone.trainable_parameters().items():
        gradient = whole(spread.trainable_parameters()[key].grad)
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-4, atol=1e-6, msg=key)


def check_half_precision(accelerator: Accelerator) -> None:
    """Gathered weights in bfloat16 (what a GPU gets) under autocast: float32 gradients, near those of autocast alone.

    bfloat16 has 8 bits: 2^-8 = 0.4 % a rounding, a few of them in a row.
    """
    kind, usual = KINDS["llama"], fsdp.mixed_precision
    alone, spread = kind.policy("full"), kind.policy("full")
    fsdp.mixed_precision = lambda precision, device: usual("bf16", torch.device("cuda"))
    spread.prepare(accelerator)
    fsdp.mixed_precision = usual
    for policy in (alone, spread):
        with torch.autocast("cpu", torch.bfloat16):
            kind.run(policy.network, "full").square().sum().backward()
    for key, weight in alone.trainable_parameters().items():
        gradient = whole(spread.trainable_parameters()[key].grad)
        assert gradient.dtype == torch.float32
        assert (gradient - weight.grad).norm() < 0.05 * weight.grad.norm() + 1e-6, key
    assert {weight.dtype for weight in spread.state_dict().values()} == {torch.float32}


def main(text: str) -> None:
    """Fresh runs, then the ones to resume, then the networks."""
    asked = json.loads(text)
    for scenario in SCENARIOS:
        run_scenario(asked["directory"], scenario)
    for directory in asked["resume"]:
        for scenario in SCENARIOS:
            run_scenario(directory, scenario, resume=True)
    if asked["networks"]:
        accelerator = start_accelerator()
        check_networks(Path(asked["directory"]) / "networks", accelerator)
        check_half_precision(accelerator)
        check_parts(accelerator)
    print("all scenarios ran", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
