"""How many: pairs, updates, micro-batches, evaluations. The plan, the checks and the run use it. Torch-free."""

from __future__ import annotations

from preference.config import PreferenceRun
from preference.config.algorithms import SINGLE_ANSWERS


def process_slice(rows: int, rank: int, world: int) -> tuple[int, int]:
    """[start, end) of the contiguous part of `rows` for process `rank` of `world`; parts differ by at most one row."""
    return rows * rank // world, rows * (rank + 1) // world


def pairs_per_update(config: PreferenceRun, processes: int) -> tuple[int, int]:
    """Fewest and most pairs of a process in one optimiser update; equal when the processes divide the update."""
    chunk = config.data.pairs_per_step // config.training.updates_per_rollout
    sizes = [end - start for start, end in (process_slice(chunk, rank, processes) for rank in range(processes))]
    return min(sizes), max(sizes)


def micro_batch_pairs(config: PreferenceRun, processes: int) -> int:
    """Most pairs that a process has in one micro-batch."""
    return min(config.training.micro_batch_size, pairs_per_update(config, processes)[1])


def batches(rows: int, size: int) -> int:
    """Runs of at most `size` rows."""
    return -(-rows // size)


def times_with_interval(steps: int, every: int) -> int:
    """How often something is done before the first step, after each `every`-th (0 = none) and after the last one."""
    inside = steps // every if every else 0
    return 1 + inside + (0 if every and steps % every == 0 else 1)


def evaluates(config: PreferenceRun) -> bool:
    """Whether there is anything to evaluate: held-out pairs, or prompts to answer."""
    return config.data.heldout is not None or config.evaluation.generate is not None


def evaluations_of(config: PreferenceRun) -> int:
    """Held-out evaluations of a run, the ones before and after included; 0 without anything held out."""
    return times_with_interval(config.training.steps, config.evaluation.every) if evaluates(config) else 0


def precomputes(config: PreferenceRun, pairs: int) -> bool:
    """Whether the reference is asked once for all pairs before training.

    Args:
        config: settings of the run.
        pairs: usable pairs to train on. `auto` computes once where each is met more than once, and where nothing else
            would know: all weights are trained, and no copy of them is kept.
    """
    if not config.algorithm.reads_reference():
        return False
    if config.reference.precompute == "auto":
        again = config.training.steps * config.data.pairs_per_step > pairs
        return not config.reference.keep_copy and (again or config.model.lora is None)
    return config.reference.precompute


def most_tokens(config: PreferenceRun, processes: int) -> int:
    """Most tokens of a micro-batch: each answer with its prompt as long as allowed."""
    answers = 1 if isinstance(config.algorithm, SINGLE_ANSWERS) else 2
    return answers * micro_batch_pairs(config, processes) * config.data.max_length
