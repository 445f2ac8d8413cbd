"""Our update of an image method against its floor: the same forward and backward passes of the network, called bare.

    python benchmarks/update_floor.py [--rounds 7] [--methods awm flow_grpo]

Both sides train the embedded model on the same samples, in one process, in turn; the floor has the same inputs, batch
sizes, number of passes with and without gradient, and the same optimiser, and leaves out losses, schedules, metrics,
draws and bookkeeping. Printed: the least seconds of each and their ratio, and the ratios round by round. Rollout and
reward are not in it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

OVERRIDES = {
    "awm": ["algorithm.kl_beta=0.05"],
    "flow_grpo": [
        "rollout.sampler={kind: flow_sde, noise_level: 0.7}",
        "algorithm={kind: flow_grpo, clip_range: 1e-3, kl_beta: 0.001}",
    ],
    "nft": ["rollout.sampler={kind: ode}", "algorithm={kind: nft, times: {kind: discrete, draws: 4, initial: allow}}"],
}
COMMON = ["recipe=null", "prompts.heldout=null", "evaluation.rewards=[]", "output.trackers=[]", "training.ema=null"]


class Assembled:
    """A run that has collected one step."""

    def __init__(self, overrides: Sequence[str], folder: Path, name: str) -> None:
        from align.config.load import load_config
        from align.engine.distributed import Processes, start_accelerator
        from align.engine.folder import RunFolder
        from align.engine.run import Run
        from align.engine.settings import RunSettings
        from diffusion.assemble import make_algorithm, make_policy, read_inputs
        from diffusion.inputs import keeps_reference
        from diffusion.models import load_model

        config = load_config(
            "demo/awm_tiny", [*overrides, *COMMON, f"output.directory={folder}", f"output.name={name}"]
        )
        accelerator = start_accelerator()
        self.processes = Processes(accelerator)
        self.config = config
        self.model = load_model(config.model)
        policy = make_policy(config, self.model, keep_reference=keeps_reference(config))
        run_folder = RunFolder.create(config.output, default_name=name, processes=self.processes)
        self.run = Run(accelerator, run_folder, policy, RunSettings.of(config))
        self.algorithm: Any = make_algorithm(config, self.model, read_inputs(config), self.run)
        self.batch = self.algorithm.collect(1)
        self.calls: list[tuple[dict[str, Any], str]] = []
        self._bare = torch.optim.AdamW(policy.trainable_parameters().values(), lr=1e-9)
        self._adapter = next(layer for layer in self.model.network.modules() if hasattr(layer, "lora_A"))

    def step(self) -> None:
        """A step of training: rollout, reward, updates."""
        self.batch = self.algorithm.collect(1)
        self.update()

    def update(self) -> None:
        """What the loop does with a collected batch."""
        for number, rows in self.run.updates(self.batch):
            self.algorithm.prepare_update(number, rows)
            for micro in self.run.micro_batches(rows):
                self.run.backward(self.algorithm.loss(micro))
            self.run.optimizer_step()

    def record(self) -> None:
        """Note every call of the network in one update: its inputs, and which kind of pass it was."""
        network = self.model.network

        def note(module: torch.nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
            without = "base" if self._adapter.disable_adapters else "other weights"
            self.calls.append((keywords, "trained" if torch.is_grad_enabled() else without))

        handle = network.register_forward_pre_hook(note, with_kwargs=True)
        self.update()
        handle.remove()

    def floor(self) -> None:
        """The same passes with the simplest loss that there is."""
        network = self.model.network
        for keywords, kind in self.calls:
            if kind == "trained":
                network(**keywords)[0].sum().backward()
            elif kind == "base":
                with self.run.policy.reference() as base:
                    base(**keywords)
            else:
                with torch.no_grad():
                    network(**keywords)
        self._bare.step()
        self._bare.zero_grad()


def seconds(work: Callable[[], None]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Time each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--methods", nargs="*", default=list(OVERRIDES), choices=OVERRIDES)
    arguments = parser.parse_args()
    for method in arguments.methods:
        with tempfile.TemporaryDirectory() as folder:
            one = Assembled(OVERRIDES[method], Path(folder), method)
            one.record()
            pairs = [(seconds(one.update), seconds(one.floor)) for _ in range(arguments.rounds)]
            one.run.folder.close()
        ratios = [ours / floor for ours, floor in pairs]
        ours, floor = (min(column) for column in zip(*pairs, strict=True))
        kinds = [kind for _, kind in one.calls]
        passes = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        print(
            f"{method}: least update {ours:.2f} s, least floor {floor:.2f} s, ratio {ours / floor:.3f}; round by round "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); passes: {passes}",
            flush=True,
        )


if __name__ == "__main__":
    main()
