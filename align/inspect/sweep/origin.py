"""What a run folder and its config say about a point: name, seed, how its samples are drawn, whether it is finished."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.report.records import Evaluation, Run

SEED = re.compile(r"[-_.]?seed[-_]?(\d+)$")
"""End of a run folder's name that tells seeds of one setting apart."""
SAMPLING = ("seeds", "max_new_tokens", "temperature", "top_p", "num_inference_steps", "guidance_scale")
"""Settings of an evaluation that make its samples other samples."""


def named(folder: Path, run: Run) -> tuple[str, int]:
    """The folder's name without its seed, and the seed. A folder of `align evaluate` is called after its run."""
    name = folder.name
    if folder.parent.name == "evaluation":
        name = folder.parent.parent.name
    elif folder.name == "evaluation":
        name = folder.parent.name
    match = SEED.search(name)
    if match is not None and match.start() > 0:
        return name[: match.start()], int(match[1])
    seed = run.config.get("seed", 0)
    return name, seed if isinstance(seed, int) else 0


def sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the evaluation that decide what a sample is."""
    section = config.get("evaluation")
    section = section if isinstance(section, Mapping) else {}
    generate = section.get("generate")
    section = {**section, **(generate if isinstance(generate, Mapping) else {})}
    return {key: section[key] for key in SAMPLING if key in section}


def functions(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Reward -> the function behind it, as far as the config says."""
    evaluation = config.get("evaluation")
    more = evaluation.get("rewards") if isinstance(evaluation, Mapping) else None
    entries = [entry for entry in [*(config.get("rewards") or ()), *(more or ())] if isinstance(entry, Mapping)]
    known = {
        str(entry.get("name") or str(entry.get("function", "")).rsplit(":", 1)[-1]): str(entry.get("function"))
        for entry in entries
    }
    return {name: known[name] for name in names if name in known}


def notes(run: Run, chosen: Evaluation, *, asked: bool) -> list[str]:
    """What a person should know: a run that is not finished, evaluations that cannot be read."""
    training = run.config.get("training")
    steps = training.get("steps") if isinstance(training, Mapping) else None
    found = []
    if run.metrics and isinstance(steps, int) and chosen.step < steps and not asked:
        found.append(f"{run.folder} is not finished: its last evaluation is of step {chosen.step} of {steps}.")
    return found + [f"{run.folder}: {note}" for note in run.notes if "step_" in note]
