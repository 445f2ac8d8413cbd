"""The walk from noise to a clean latent, one transition after the other. No formula: the step rules are `samplers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor

from diffusion.branches import Nodes
from diffusion.paths import Path
from diffusion.trajectory import Recorder
from diffusion.transitions import Interval, check_fit, transition

Predict = Callable[[Tensor, float, Tensor], Tensor]
"""The network's (guided) output at (latents, time) for the conditioning of these rows of the batch."""
Noise = Callable[..., Tensor]
"""Standard normal noise of these row numbers for a purpose: noise(numbers, "rollout_noise", j)."""


def denoise(
    sampler: object,
    path: Path,
    predict: Predict,
    noise: Noise,
    index: Int[Tensor, "n"],
    times: Sequence[float],
    *,
    noisy: Sequence[bool] | None = None,
    keys: Int[Tensor, "n t1"] | None = None,
    recorder: Recorder | None = None,
) -> Float[Tensor, "n ..."]:
    """Clean latents of n rows.

    Args:
        sampler: settings of the step rule.
        path: of the model.
        predict: the network.
        noise: where noise comes from.
        index: row numbers; they key the noise.
        times: the schedule, n + 1 numbers.
        noisy: which steps draw noise; None = all of them, if the rule is a random one.
        keys: of `branches.noise_keys`, where rows share noise: rows that are still equal go through the network once.
        recorder: takes down the trained steps.
    """
    check_fit(sampler, path)
    nodes = Nodes.apart(len(index)) if keys is None else Nodes.of(keys[:, 0])
    x = noise((index if keys is None else keys[:, 0])[nodes.first], "latents")
    x = x if recorder is None else recorder.state(0, x, nodes)
    for j, (t, t_next) in enumerate(pairwise(times)):
        output = predict(x, t, nodes.first)
        if recorder is not None and recorder.reads_implied(j):
            recorder.implied(path.ends(x, output, t).clean, nodes)
        draws = noisy is None or noisy[j]
        numbers = index
        if draws and keys is not None:
            finer, numbers = Nodes.of(keys[:, j + 1]), keys[:, j + 1]
            if len(finer) > len(nodes):
                parent = nodes.of_row[finer.first].to(x.device)
                x, output = x[parent], output[parent]
            nodes = finer
        at = Interval(t=t, t_next=t_next, t_second=times[1], noisy=int(draws))
        taken = noise(numbers[nodes.first], "rollout_noise", j) if draws and is_random(sampler) else None
        step = transition(sampler, path, at, x, output, noise=taken)
        before, x = x, step.prev_sample
        if recorder is not None:
            x = recorder.state(j + 1, x, nodes)
            if j in recorder.trained:
                # Evaluated as an update will evaluate it: at the state as it was kept.
                step = transition(sampler, path, at, before, output, prev_sample=x, reduce=recorder.reduce)
                recorder.step(step, nodes)
    if recorder is not None and recorder.reads_implied(len(times) - 1):
        recorder.implied(x, nodes)
    return nodes.spread(x)


def is_random(sampler: object) -> bool:
    """Whether the rule draws noise at all: its level is not 0."""
    return bool(getattr(sampler, "noise_level", 0) or getattr(sampler, "eta", 0))
