"""Whole runs of the methods on final pictures: they follow the reward, resume exactly, on any number of processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from align.config.directions import Arc
from align.config.load import save_config
from align.config.pipeline import PipelineConfig
from align.config.shaping import Directional, DrawnDirection
from align.config.shared import CheckpointConfig, OptimizerConfig, RewardConfig, TrainingConfig
from align.report.metrics import describe
from diffusion import commands
from diffusion.config import (
    DiffusionDpoConfig,
    DirectionsConfig,
    DiscreteTimes,
    EmbeddingCondition,
    EvaluationConfig,
    ImagesConfig,
    LinearLag,
    LogitNormalTimes,
    NftConfig,
    OnlineDpoConfig,
    PairsConfig,
    RolloutConfig,
    RolloutTimes,
    RwrConfig,
    SftBestConfig,
    SftConfig,
)

from ..diffusion.models.assembled import RUN, with_reward
from ..diffusion.models.config import miniature_run
from ..diffusion.models.miniature import PROMPTS
from ..diffusion.stored import write_pairs


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


# --- learning ---------------------------------------------------------------------------------------------------------

STEPS = 8
LEARNING = replace(
    RUN,
    rollout=replace(RUN.rollout, prompts_per_step=len(PROMPTS), group_size=8, batch_size=32, num_inference_steps=5),
)
METHODS = {
    "nft": NftConfig(times=RolloutTimes(draws=5), kl_beta=0.0),
    "online_dpo": OnlineDpoConfig(beta=20.0, times=LogitNormalTimes(draws=3)),
    "rwr": RwrConfig(temperature=4e-4, times=DiscreteTimes(draws=3)),
    "sft_best": SftBestConfig(times=DiscreteTimes(draws=3)),
}


class Shuffled:
    """A collector whose scores and advantages are dealt out anew among the samples of a step."""

    def __init__(self, collector) -> None:
        self.inner, self.pipeline, self.encode = collector, collector.pipeline, collector.encode

    def __call__(self, step, network):
        batch = self.inner(step, network)
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(step))
        signal = batch.signal
        mixed = replace(signal, scores=signal.scores[order], advantages=signal.advantages[order])
        return replace(batch, signal=mixed)


def brightness(images) -> list[float]:
    return [sum(image.convert("L").tobytes()) / (255 * image.width * image.height) for image in images]


def final_brightness(method: str, sign: float, shuffled: bool) -> torch.Tensor:
    """Brightness of 96 pictures after training for it (sign 1) or against it (sign -1)."""
    parts = with_reward(
        lambda *, images, prompts: [sign * value for value in brightness(images)],
        replace(LEARNING, algorithm=METHODS[method]),
    )
    if shuffled:
        parts.awm._collector = Shuffled(parts.awm._collector)
    weights = list(parts.policy.trainable_parameters().values())
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0)
    for step in range(1, STEPS):
        batch = parts.awm.collect(step)
        optimizer.zero_grad()
        parts.awm.loss(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        parts.awm.after_step(step)
    ends = [parts.awm.collect(step).samples.images for step in range(STEPS, STEPS + 3)]
    return torch.tensor(brightness([image for images in ends for image in images]))


def difference_in_standard_errors(high: torch.Tensor, low: torch.Tensor) -> float:
    """The spread between prompts is in the error, which makes it conservative."""
    return float((high.mean() - low.mean()) / (high.var() / len(high) + low.var() / len(low)).sqrt())


@pytest.mark.parametrize("method", METHODS)
def test_pictures_follow_the_reward_and_not_a_shuffled_one(method):
    """Trained for and against brightness, pictures end more than 3 standard errors apart; clearly less when the very
    scores are dealt out at random.

    The two directions are compared with each other because training on its own pictures moves a random network's
    brightness by itself, whatever the reward.
    """
    apart, chance = (
        difference_in_standard_errors(*(final_brightness(method, sign, shuffled) for sign in (1.0, -1.0)))
        for shuffled in (False, True)
    )
    assert apart > 3
    assert abs(chance) < apart - 2


# --- resume, processes ------------------------------------------------------------------------------------------------


def run_of(folder: Path, method: str, **changes):
    """A small run; off-line ones read pairs beside the model."""
    if not (folder / "pictures" / "pairs.jsonl").exists():
        write_pairs(folder / "pictures")
    path = str(folder / "pictures" / "pairs.jsonl")
    methods = {
        "nft": NftConfig(times=RolloutTimes(draws=3), lagged=LinearLag(per_step=0.2, max_decay=0.5)),
        "online_dpo": OnlineDpoConfig(times=LogitNormalTimes(draws=2)),
        "rwr": RwrConfig(times=DiscreteTimes(draws=2), temperature=0.01, kl_beta=0.1),
        "sft_best": SftBestConfig(times=DiscreteTimes(draws=2)),
        "diffusion_dpo": DiffusionDpoConfig(data=PairsConfig(path=path), pairs_per_step=4),
        "sft": SftConfig(data=ImagesConfig(path=path), images_per_step=4),
        "directions": SftBestConfig(times=DiscreteTimes(draws=2)),
    }
    offline = method in ("diffusion_dpo", "sft")
    rewards = (RewardConfig(function="brightness"),)
    if method == "directions":
        rewards = (*rewards, RewardConfig(function="contrast"))
        changes |= {
            "directions": DirectionsConfig(sample=Arc(), condition=EmbeddingCondition(hidden=8, dropout=0.3)),
            "pipeline": PipelineConfig(weights=DrawnDirection(), combine=Directional()),
        }
    evaluation = EvaluationConfig(seeds=1, num_inference_steps=2, strip_prompts=0, rewards=rewards if offline else ())
    config = miniature_run(
        folder,
        algorithm=methods[method],
        rewards=() if offline else rewards,
        evaluation=evaluation,
        checkpoint=CheckpointConfig(every=1, keep_last=9),
        **changes,
    )
    return replace(config, output=replace(config.output, name=method, images_every=0))


def metrics_of(folder: Path) -> list[dict]:
    """Lines of metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "time/" not in k and k != "images_per_second"} for line in lines]


@pytest.mark.parametrize("method", ["nft", "online_dpo", "diffusion_dpo"])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path, method):
    """Taken up after the first of three steps: the same numbers and weights as straight through, bit for bit."""
    config = run_of(tmp_path, method, training=TrainingConfig(steps=3, micro_batch_size=4))
    folder = commands.train(config)
    straight = tmp_path / "straight"
    shutil.copytree(folder, straight)
    for step in (2, 3):
        shutil.rmtree(folder / "checkpoints" / f"step_{step:06d}")
    AcceleratorState._reset_state(reset_partial_state=True)
    commands.train(config, resume=folder)
    assert [line["step"] for line in metrics_of(folder)] == [0, 1, 2, 3]
    assert metrics_of(folder) == metrics_of(straight)
    for name in ("weights", "algorithm", "ema", "optimizer"):
        there, here = (path / "checkpoints" / "step_000003" / f"{name}.safetensors" for path in (straight, folder))
        assert there.exists() == here.exists()
        assert not there.exists() or there.read_bytes() == here.read_bytes()


CHILD = """
import os, sys
from accelerate.state import AcceleratorState
from align.config.load import load_config
from diffusion.commands import train
for argument in sys.argv[1:]:
    path, os.environ["MASTER_PORT"] = argument.rsplit(":", 1)
    train(load_config(path))
    AcceleratorState._reset_state(reset_partial_state=True)  # the next run is one of its own
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, one for the process group of each run."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def train_in_processes(paths: list[Path], processes: int) -> None:
    """`align train` on each of the configs, one after the other, in a subprocess for each rank."""
    root = Path(commands.__file__).resolve().parents[1]
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
    }
    ranks = [{}]
    if processes > 1:
        group = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(processes)}
        ranks = [
            {**group, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
            for rank in range(processes)
        ]
    runs = [f"{path}:{port}" for path, port in zip(paths, free_ports(len(paths)), strict=True)]
    command = [sys.executable, "-c", CHILD, *runs]
    children = [
        subprocess.Popen(command, env={**shared, **rank}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in ranks
    ]
    outputs = [child.communicate(timeout=500)[0] for child in children]
    assert all(child.returncode == 0 for child in children), "\n".join(outputs)


ALL = ("nft", "online_dpo", "rwr", "sft_best", "diffusion_dpo", "sft", "directions")


@pytest.fixture(scope="module")
def both_worlds(tmp_path_factory) -> dict[int, Path]:
    """Every method, trained once in one process and once in two; two launches in all."""
    folders = {}
    for world in (1, 2):
        folder = tmp_path_factory.mktemp(f"world{world}")
        folders[world] = folder
        settings = {
            "rollout": RolloutConfig(
                prompts_per_step=2, group_size=4, batch_size=1, num_inference_steps=4, sampler=RUN.rollout.sampler
            ),
            "training": TrainingConfig(steps=2, micro_batch_size=2),
            "optimizer": OptimizerConfig(learning_rate=1e-3),
        }
        paths = [save_config(run_of(folder, method, **settings), folder / f"{method}.yaml") for method in ALL]
        train_in_processes(paths, world)
    return folders


@pytest.mark.parametrize("method", ALL)
def test_two_processes_equal_one(both_worlds, method):
    """The same metrics and weights. Rows are dealt out in random order, so groups, and with them pairs, span processes;
    rollout batches of 1 on both, so that every picture is drawn in a batch of the same shape.
    """
    runs = [both_worlds[world] / "runs" / method for world in (1, 2)]
    ours, theirs = (metrics_of(run) for run in runs)
    assert [line["step"] for line in theirs] == [0, 1, 2]
    for one, two in zip(ours, theirs, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            # Rounding of sums in another order, and after the first update of Adam, which divides by gradients.
            assert two[name] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), name
    weights = [load_file(run / "checkpoints" / "step_000001" / "weights.safetensors") for run in runs]
    moved = max(float(tensor.abs().max()) for name, tensor in weights[0].items() if "lora_B" in name)
    assert moved > 1e-4
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=2e-5)


def test_every_logged_metric_is_described(both_worlds):
    for method in ALL:
        names = metrics_of(both_worlds[1] / "runs" / method)[-1]
        assert [name for name in names if name not in ("step", "eval/diversity") and describe(name) is None] == []


def test_reports_of_runs_without_rollouts(both_worlds):
    """4 pairs a step are 8 pictures; the page has charts of the pairs and none of rewards that there are not."""
    page = (both_worlds[1] / "runs" / "diffusion_dpo" / "report.html").read_text(encoding="utf-8")
    assert "for 2 steps: 16 pictures" in page
    assert "Pairs that are in order" in page
    assert "Spread within a prompt" not in page


def test_pairs_did_span_processes(both_worlds):
    """The case above is the one that matters: one process's rows alone would give other pairs."""
    from diffusion.data import process_rows, step_rows

    groups = step_rows(len(PROMPTS), 2, 4, 0, 0).group_ids
    for rank in (0, 1):
        assert len(groups[process_rows(8, 1, rank, 2)].unique()) == 2
    assert metrics_of(both_worlds[2] / "runs" / "online_dpo")[1]["pairs"] == 2
