"""Where a step of the suite goes, and what the narrow last layer saves: beside benchmarks/preference.py, same loop.

    python benchmarks/preference_parts.py profile --length 256/64       operators of two steps, by their own time
    python benchmarks/preference_parts.py last_layer --length 256/64    steps with and without it in turn, one process
    python benchmarks/preference_parts.py lean_layers --length 96/96    the same with what layers need not keep; peaks
    python benchmarks/preference_parts.py attention --length 256/64     the same with attention in pieces; peaks
    python benchmarks/preference_parts.py imports                       resident memory of the imports alone

Times of steps in turn are of the processor, all threads: other work on the machine disturbs them least. Set
OMP_NUM_THREADS=1 for them.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

FIRST = 3
"""Step before which nothing is looked at."""


def suite() -> ModuleType:
    """benchmarks/preference.py, under another name than the package that it measures."""
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
    found = importlib.util.spec_from_file_location("bench", Path(__file__).with_name("preference.py"))
    assert found is not None  # the file beside this one
    assert found.loader is not None
    module = sys.modules["bench"] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def run(bench: ModuleType, length: str, steps: int) -> None:
    """The suite's loop at the benchmark's own settings."""
    prompt, answer = (int(part) for part in length.split("/"))
    bench.run_suite(
        bench.Setting(method="dpo", prompt=prompt, answer=answer, steps=steps, layers=8, width=384, device="cpu")
    )


def profile(length: str, rounds: int) -> None:
    """Operators of two steps."""
    import torch

    bench = suite()
    recorded = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    class Clock(bench.Clock):
        ends = 0

        def step_ends(self) -> None:
            super().step_ends()
            Clock.ends += 1
            if Clock.ends == FIRST:
                recorded.__enter__()
            elif Clock.ends == FIRST + 2:
                recorded.__exit__(None, None, None)

    bench.Clock = Clock
    run(bench, length, FIRST + 2)
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=50))


def last_layer(length: str, rounds: int) -> None:
    """Steps with the last layer narrow and whole in turn."""
    in_turn(length, rounds, "last_layer")


def lean_layers(length: str, rounds: int) -> None:
    """Steps with recipes instead of tensors and without in turn; then the peak of a step of either kind."""
    in_turn(length, rounds, "lean_layers", peaks=True)


def attention(length: str, rounds: int) -> None:
    """Steps with attention in pieces and whole in turn; then the peak of a step of either kind."""
    in_turn(length, rounds, "pieces", peaks=True)


def in_turn(length: str, rounds: int, field: str, peaks: bool = False) -> None:
    """Steps with what a field of the model's support holds and without it in turn.

    Args:
        length: prompt/answer.
        rounds: pairs of steps.
        field: of `preference.layout.Support`; None there is without.
        peaks: profile one more step of either kind for its largest sum of live tensors.
    """
    bench = suite()
    import torch

    from preference.forward import SequenceScorer

    scorers: list[Any] = []
    made = SequenceScorer.__init__

    def remembered(self: Any, *given: Any, **more: Any) -> None:
        made(self, *given, **more)
        scorers.append(self)

    SequenceScorer.__init__ = remembered  # type: ignore[method-assign]
    times: dict[str, list[float]] = {"with": [], "without": []}
    highest: dict[str, float] = {}
    steps = FIRST + 1 + 2 * rounds + 2 * peaks

    class Clock(bench.Clock):
        ends, last, recorded = 0, 0.0, None
        plans: dict[str, Any]

        def step_ends(self) -> None:
            super().step_ends()
            now, scorer = time.process_time(), scorers[0]
            if Clock.ends == 0:
                bare = replace(scorer.plan, support=replace(scorer.plan.support, **{field: None}))
                Clock.plans = {"with": scorer.plan, "without": bare}
            kind = ("with", "without")[Clock.ends % 2]  # of the step that ends here
            if FIRST <= Clock.ends < FIRST + 1 + 2 * rounds:
                times[kind].append(now - Clock.last)
            if Clock.recorded is not None:
                Clock.recorded.__exit__(None, None, None)
                highest[kind], Clock.recorded = peak_of(Clock.recorded) / 2**20, None
            Clock.ends += 1
            scorer.plan = Clock.plans[("with", "without")[Clock.ends % 2]]
            if peaks and FIRST + 2 * rounds < Clock.ends < steps:
                Clock.recorded = torch.profiler.profile(
                    activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
                )
                Clock.recorded.__enter__()
            Clock.last = time.process_time()

    bench.Clock = Clock
    run(bench, length, steps)
    for name, found in times.items():
        print(f"{name:7} least {min(found):.3f} median {statistics.median(found):.3f} CPU s of {len(found)} steps")
    least, middle = (which(times["with"]) / which(times["without"]) for which in (min, statistics.median))
    print(f"{field}, with / without: least {least:.3f}, median {middle:.3f}")
    if peaks:
        saved = highest["without"] - highest["with"]
        print(f"live tensors at most, above the step's start: with {highest['with']:.0f} MiB, {saved:.0f} MiB less")


def peak_of(recorded: Any) -> int:
    """Largest sum of what had been allocated and not freed, in bytes, within what was profiled."""
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    return highest


def imports(length: str, rounds: int) -> None:
    """Resident memory after each of them."""
    for name in ("torch", "transformers.models.llama.modeling_llama", "peft", "accelerate"):
        __import__(name)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(f"{pages * 4096 / 2**20:6.0f} MiB with {name}")


COMMANDS = {
    "profile": profile,
    "last_layer": last_layer,
    "lean_layers": lean_layers,
    "attention": attention,
    "imports": imports,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--length", default="256/64", help="prompt/answer, in tokens")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of steps in turn")
    given = parser.parse_args()
    COMMANDS[given.command](given.length, given.rounds)


if __name__ == "__main__":
    main()
