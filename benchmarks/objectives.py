"""Ways to weigh three rewards of pictures against each other, on the embedded model: docs/results/objectives.md.

    python benchmarks/objectives.py fronts --out OUT [--seeds 0] [--systems "weighted sum" LSC]
    python benchmarks/objectives.py hack --out OUT [--seeds 0]
    python benchmarks/objectives.py plot --out OUT          pictures and tables of both

What is done is not done again, so `fronts` may run in several processes with different seeds; the last call, with all
seeds and systems, only writes the page of `align sweep`. The two PRO need `benchmarks/objectives_pro.py pairs` and
`train` with the same OUT before.

Success (the share of the caption that is right; whole captions are reported), compressibility (minus kB of the JPEG
file) and colourfulness. All rewards are trained in units of the base model's standard deviation within a prompt, as
`align audit` finds it on training captions (`UNITS`). Every point has the same steps, pictures, learning rate and base
estimator; each system has four points. Systems with weights take `WEIGHTS`; the constraint takes `BOUNDS` instead,
and PRO its adapter's weights, alone and half mixed with three of `WEIGHTS`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SEEDS = (0, 1, 2)
OBJECTIVES = ("shapes_strict", "compressibility", "colourfulness")
REFERENCE, HIGH = (0.0, -2.2, 0.1), (1.0, -1.0, 0.35)


@dataclass(frozen=True)
class Unit:
    """A reward of the base model on training captions: 576 pictures of 96 captions.

    Attributes:
        mean: of all.
        spread: standard deviation within a caption.
        good: mean + PhiInv(0.85) standard deviations of all, LSC's rule for "good enough"; of success, whose rule
            gives 1.05, the largest that there is.
    """

    mean: float
    spread: float
    good: float


UNITS: Mapping[str, Unit] = {
    "success": Unit(0.80, 0.22, 1.0),
    "compressibility": Unit(-1.72, 0.185, -1.37),
    "colourfulness": Unit(0.206, 0.032, 0.26),
}
REWARDS = (
    "rewards=[{name: success, function: 'diffusion.tiny.reward:shapes'}, "
    "{name: compressibility, function: jpeg_compressibility}, {name: colourfulness, function: colourfulness}]"
)
COMMON = (
    "recipe=null",
    REWARDS,
    "rollout.prompts_per_step=6",
    "rollout.group_size=8",
    "rollout.batch_size=48",
    "pipeline.base={kind: grpo, scale: batch}",
    "training.ema={decay: 0.9}",
    "training.micro_batch_size=48",
    "evaluation.seeds=1",
    "checkpoint.every=100000",
    "checkpoint.keep_best=0",
    "output.images_every=0",
    "output.trackers=[]",
)
STEPS, RATE = 12, 2e-3
HACK_STEPS = 40

WEIGHTS: Mapping[str, tuple[float, float, float]] = {
    "even": (1 / 3, 1 / 3, 1 / 3),
    "success": (0.6, 0.2, 0.2),
    "compressibility": (0.2, 0.6, 0.2),
    "colourfulness": (0.2, 0.2, 0.6),
}
BOUNDS: Mapping[str, tuple[float, float]] = {
    "even": (0.5, 0.5),
    "success": (-0.5, -0.5),
    "compressibility": (1.5, -1.0),
    "colourfulness": (-1.0, 1.5),
}
"""Success is maximised; compressibility and colourfulness must be this many deviations above the base model's mean."""
DUAL_START, DUAL_RATE = 0.5, 0.2
"""First weight of a constraint, and its change per step and deviation of violation."""


def deviations() -> str:
    """Transforms into deviations from the base model."""
    parts = (
        f"{{kind: affine, rewards: [{name}], scale: {1 / unit.spread:.6g}, shift: {-unit.mean / unit.spread:.6g}}}"
        for name, unit in UNITS.items()
    )
    return f"pipeline.transforms=[{', '.join(parts)}]"


def good_enough() -> str:
    """LSC in the same units, against what is good enough."""
    parts = (
        f"{{kind: lsc, rewards: [{name}], scale: {unit.spread}, reference: {{kind: constant, value: {unit.good}}}}}"
        for name, unit in UNITS.items()
    )
    return f"pipeline.transforms=[{', '.join(parts)}]"


def weighed(weights: Sequence[float]) -> tuple[str, ...]:
    """The user's weights."""
    return tuple(f"rewards.{place}.weight={weight:.6g}" for place, weight in enumerate(weights))


def combined(transforms: str, combine: str) -> dict[str, tuple[str, ...]]:
    """A point for each of `WEIGHTS`."""
    return {name: (transforms, f"pipeline.combine={combine}", *weighed(one)) for name, one in WEIGHTS.items()}


def constrained() -> dict[str, tuple[str, ...]]:
    """A point for each of `BOUNDS`."""
    found = {}
    for name, bounds in BOUNDS.items():
        parts = []
        for reward, bound in zip(("compressibility", "colourfulness"), bounds, strict=True):
            unit = UNITS[reward]
            parts.append(
                f"{{reward: {reward}, at_least: {unit.mean + bound * unit.spread:.6g}, start: {DUAL_START}, "
                f"rate: {DUAL_RATE / unit.spread:.6g}}}"
            )
        found[name] = (deviations(), f"pipeline.weights={{kind: constraint, constraints: [{', '.join(parts)}]}}")
    return found


def orchestrated(adapter: Path) -> dict[str, tuple[str, ...]]:
    """The adapter's weights alone, and half of them with half of the user's."""
    found = {}
    for name, weights in WEIGHTS.items():
        anchor = 0.0 if name == "even" else 0.5
        source = f"pipeline.weights={{kind: adapter, path: {adapter}, anchor: {anchor}}}"
        found["alone" if name == "even" else name] = (deviations(), source, *weighed(weights))
    return found


def systems(out: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """System -> point -> overrides."""
    return {
        "weighted sum": combined(deviations(), "{kind: weighted_sum}"),
        "Chebyshev": combined(deviations(), "{kind: chebyshev}"),
        "soft-min": combined(deviations(), "{kind: soft_min, tau: 1.0}"),
        "LSC": combined(good_enough(), "{kind: weighted_sum}"),
        "constraint": constrained(),
        "PRO contrastive": orchestrated(out / "pro" / "contrastive-1200-seed0"),
        "PRO paper": orchestrated(out / "pro" / "paper-1200-seed0"),
    }


HACK: Mapping[str, tuple[str, ...]] = {"weighted sum": (deviations(),), "LSC": (good_enough(),)}
HACK_WEIGHTS = {"hack": (1.0, 2.0, 0.0), "equal": (1.0, 1.0, 0.0)}
"""Compressibility counts twice or just as much as success; colourfulness is only measured."""


def quoted(overrides: Sequence[str]) -> str:
    """As one option of `align sweep`, which takes it apart as a shell would."""
    return " ".join('"' + one.replace('"', '\\"') + '"' for one in overrides)


def box(values: Sequence[float], names: Sequence[str]) -> str:
    return ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def sweep(out: Path, tries: Mapping[str, Sequence[str]], common: Sequence[str], seeds: Sequence[int]) -> None:
    """Train what is missing, one thread, and write the page."""
    command = [sys.executable, "-m", "align", "sweep", "demo/awm_tiny", "--objectives", ",".join(OBJECTIVES)]
    command += ["--output", str(out), "--with", quoted([*COMMON, *common]), "--seeds", ",".join(map(str, seeds))]
    command += ["--reference", box(REFERENCE, OBJECTIVES), "--high", box(HIGH, OBJECTIVES)]
    for name, overrides in tries.items():
        command += ["--try", f"{name}: {quoted(overrides)}"]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=HERE, check=True)


def folder(system: str) -> str:
    """A system's name as `align sweep` takes it."""
    return system.replace(" ", "_")


def fronts(arguments: argparse.Namespace) -> None:
    """Four points of every system, every seed."""
    chosen = systems(arguments.out)
    tries = {
        f"{folder(name)}/{point}": overrides
        for name in arguments.systems or chosen
        for point, overrides in chosen[name].items()
    }
    common = (
        f"training.steps={STEPS}",
        f"optimizer.learning_rate={RATE}",
        "evaluation.every=0",
        "evaluation.num_inference_steps=10",
        "evaluation.strip_every=0",
    )
    sweep(arguments.out / "fronts", tries, common, arguments.seeds)


def hack(arguments: argparse.Namespace) -> None:
    """The same two rewards and weights, summed and as a logical AND, for longer."""
    tries = {
        f"{folder(name)}/{point}": (*HACK[name], *weighed(weights))
        for name in arguments.systems or HACK
        for point, weights in HACK_WEIGHTS.items()
    }
    common = (f"training.steps={HACK_STEPS}", "evaluation.every=10", f"evaluation.strip_every={HACK_STEPS}")
    sweep(arguments.out / "hack", tries, common, arguments.seeds)


def plot(arguments: argparse.Namespace) -> None:
    """Pictures and tables."""
    from objectives_hack import hack_figure
    from objectives_plot import front_figure

    front_figure(arguments.out)
    hack_figure(arguments.out)


COMMANDS = {"fronts": fronts, "hack": hack, "plot": plot}


def main() -> None:
    """Parse and run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--out", type=Path, default=Path("runs/objectives"))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--systems", nargs="*", default=None, help="all, where none is named")
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    main()
