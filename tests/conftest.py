"""For every test: run-time checks of shapes and dtypes from the annotations, and property tests that repeat."""

import os
from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

# Before torch is imported: the workers of xdist share the cores, and children of tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# AdvantageInputs is left to its own checks: their messages are the ones that users see.
FOLDER = Path(__file__).parent.parent / "align" / "advantages"
ESTIMATORS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in ("__init__", "inputs"))

# Before the first import of these packages: only modules that are imported later are checked. Users do not pay for it.
install_import_hook(
    [
        "align.groups",
        "align.order",
        "align.allocation",
        "align.pairs",
        "align.objectives",
        *[f"align.advantages.{name}" for name in ESTIMATORS],
        "align.advantages.credit",
        "align.shaping",
        "align.rewards",
        "align.statistics",
        "diffusion.paths",
        "diffusion.timesteps",
        "diffusion.step",
        "diffusion.samplers",
        "diffusion.sa_solver",
        "diffusion.losses",
        "diffusion.data",
        "preference.losses",
        "preference.logprobs",
        "preference.layout",
        "preference.ranking",
        "preference.teacher",
        "preference.reward_models.losses",
        "preference.reward_models.calibration",
        "preference.reward_models.network",
        "preference.adpa",
        "preference.dckd",
    ],
    "beartype.beartype",
)

# The same examples in every run, no time limit that a busy machine could miss, no files left behind.
settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=25)
settings.load_profile("suite")
