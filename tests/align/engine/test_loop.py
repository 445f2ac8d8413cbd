"""Whole runs of the toy method in this process."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from align.engine import checkpoint as files
from align.engine.hooks import Hooks
from align.engine.loop import train
from align.engine.run import Run
from align.engine.saving import CheckpointFailedError, OtherModelError
from align.engine.timers import APART
from align.engine.trackers import Picture
from align.errors import AlignError
from align.types import LossOutput


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def start(toy: ModuleType, directory: Path, **settings: object) -> tuple[Run, object]:
    return toy.start(toy.ToySettings(directory=str(directory), **settings))


def test_a_run_leaves_everything_behind(toy: ModuleType, tmp_path: Path):
    run, method = start(toy, tmp_path, trackers=("tensorboard",))
    before = {name: weight.clone() for name, weight in run.policy.state_dict().items()}
    outcome = train(run, method)
    assert (outcome.step, outcome.interrupted_by) == (6, None)
    assert any(not torch.equal(weight, before[name]) for name, weight in run.policy.state_dict().items())

    folder = tmp_path / "toy"
    recorded = lines(folder)
    assert [line["step"] for line in recorded] == list(range(7))
    assert recorded[0].keys() == {"step", "eval/tone/mean", "time/evaluate"}
    expected = {"reward", "loss", "score", "baseline", "grad_norm", "learning_rate", "skipped_updates", "time/step"}
    assert expected | {"images_per_second", "time/rollout", "time/forward", "time/backward"} <= recorded[1].keys()
    assert ["eval/tone/mean" in line for line in recorded] == [True, False, True, False, True, False, True]
    # warm-up of 3 updates, then a cosine over the other 9; two updates a step, the second one is logged
    assert [line["learning_rate"] for line in recorded[1:3]] == pytest.approx([0.005, 0.01])
    assert recorded[6]["learning_rate"] == pytest.approx(0.01 * 0.5 * (1 + math.cos(math.pi * 8 / 9)))
    times = {name.removeprefix("time/"): value for name, value in recorded[4].items() if name.startswith("time/")}
    assert {"evaluate", "pictures"} <= times.keys()  # reported, and no part of the step
    inside = sum(value for name, value in times.items() if name not in (*APART, "step"))
    assert 0 < inside <= times["step"] * (1 + 1e-9)

    assert [path.name for path in files.listed(folder / "checkpoints")][-2:] == ["step_000004", "step_000006"]
    rows = [json.loads(row) for row in (folder / "samples" / "step_000004.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(12))
    assert [row["image"] for row in rows[:4]] == [f"images/step_000004/{n:03d}.png" for n in range(3)] + [None]
    assert rows[0]["rewards"].keys() == {"tone"}
    assert rows[0]["score"] == pytest.approx(rows[0]["rewards"]["tone"])
    with Image.open(folder / rows[0]["image"]) as picture:
        assert picture.size == (4, 4)
    assert list((folder / "tensorboard").iterdir())


def test_the_result_does_not_depend_on_the_micro_batch_size(toy: ModuleType, tmp_path: Path):
    weights = []
    for size in (1, 5, 12):
        run, method = start(toy, tmp_path / str(size), micro_batch_size=size, global_noise=False)
        train(run, method)
        weights.append(run.policy.state_dict())
    for name in weights[0]:
        for other in weights[1:]:
            torch.testing.assert_close(other[name], weights[0][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_and_the_run_goes_on_later(
    toy: ModuleType, tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
):
    straight, method = start(toy, tmp_path / "straight")
    train(straight, method)

    asked = []

    def ask(place: str, step: int) -> None:
        if (place, step) == ("update", 3) and not asked:
            asked.append(step)
            os.kill(os.getpid(), number)

    run, method = toy.start(toy.ToySettings(directory=str(tmp_path / "stopped")), ask)
    outcome = train(run, method)
    assert (outcome.step, outcome.interrupted_by) == (3, signal.Signals(number).name)
    assert "stopped after step 3" in (printed := capsys.readouterr().out)
    assert f"align train {run.folder.path}" in printed

    run, method = start(toy, tmp_path / "stopped", resume=True)
    assert train(run, method).step == 6
    for name, weight in run.policy.state_dict().items():
        assert torch.equal(weight, straight.policy.state_dict()[name])


def test_a_finished_run_resumes_to_nothing_and_with_more_steps_goes_on(toy: ModuleType, tmp_path: Path):
    run, method = start(toy, tmp_path, steps=2)
    train(run, method)
    run, method = start(toy, tmp_path, steps=2, resume=True)
    assert train(run, method).step == 2
    run, method = start(toy, tmp_path, steps=4, resume=True)
    assert train(run, method).step == 4
    assert [line["step"] for line in lines(tmp_path / "toy")] == [0, 1, 2, 3, 4]


def test_a_run_without_a_checkpoint_begins_again(toy: ModuleType, tmp_path: Path):
    def fail(place: str, step: int) -> None:
        if step == 2:
            raise RuntimeError("broken")

    run, method = toy.start(toy.ToySettings(directory=str(tmp_path)), fail)
    with pytest.raises(RuntimeError, match="broken"):
        train(run, method)
    assert [line["step"] for line in lines(tmp_path / "toy")] == [0, 1]
    run, method = start(toy, tmp_path, resume=True)  # the lock was let go
    train(run, method)
    assert [line["step"] for line in lines(tmp_path / "toy")] == list(range(7))


def test_a_checkpoint_of_another_model_is_refused(toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, method = start(toy, tmp_path, steps=2)
    train(run, method)
    monkeypatch.setattr(toy, "network", lambda: torch.nn.Sequential(torch.nn.Linear(toy.FEATURES, 1)))
    run, method = start(toy, tmp_path, resume=True)
    with pytest.raises(OtherModelError, match="differ in shape"):
        train(run, method)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = files._write_parts

    def full_at_4(folder: Path, parts: object) -> None:
        if "step_000004" in folder.name:
            raise OSError(28, "No space left on device")
        written(folder, parts)

    monkeypatch.setattr(files, "_write_parts", full_at_4)
    run, method = start(toy, tmp_path)
    assert train(run, method).step == 6
    assert [line.get("checkpoint_failed") for line in lines(tmp_path / "toy")] == [None] * 5 + [1.0, None]
    assert [path.name for path in files.listed(tmp_path / "toy" / "checkpoints")] == ["step_000002", "step_000006"]

    def full(folder: Path, parts: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_parts", full)
    run, method = start(toy, tmp_path / "other", steps=2)
    with pytest.raises(CheckpointFailedError, match="No space left"):
        train(run, method)


def test_a_loss_that_is_not_a_number_is_skipped_counted_and_ends_the_run_if_it_stays(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound = toy.Toy.loss

    def sick(self: object, micro: object, steps: tuple[int, ...]) -> LossOutput:
        out = sound(self, micro)
        return replace(out, loss=out.loss * math.nan) if self.step in steps else out

    monkeypatch.setattr(toy.Toy, "loss", lambda self, micro: sick(self, micro, (2,)))
    run, method = start(toy, tmp_path / "once", global_noise=False)
    train(run, method)
    recorded = lines(tmp_path / "once" / "toy")
    assert [line["skipped_updates"] for line in recorded[1:]] == [0, 2, 0, 0, 0, 0]
    assert recorded[2]["loss"] is None
    assert recorded[2]["grad_norm"] is None
    assert recorded[3]["loss"] is not None
    assert all(torch.isfinite(weight).all() for weight in run.policy.state_dict().values())

    monkeypatch.setattr(toy.Toy, "loss", lambda self, micro: sick(self, micro, tuple(range(2, 9))))
    run, method = start(toy, tmp_path / "always", steps=8, global_noise=False)
    with pytest.raises(AlignError, match="5 updates in a row"):
        train(run, method)
    assert [line["step"] for line in lines(tmp_path / "always" / "toy")] == [0, 1, 2, 3]


def test_hooks_are_called_before_between_and_after(toy: ModuleType, tmp_path: Path):
    run, method = start(toy, tmp_path, steps=5, trackers=("tensorboard",))
    evaluated, drawn = [], []

    def draw(step: int) -> list[Picture]:
        drawn.append(step)
        return [Picture(image=Image.new("RGB", (2, 2)), caption="strip")]

    run.hooks = Hooks(
        evaluate=lambda step: evaluated.append(step) or {"eval/x/mean": float(step)},
        pictures=draw,
        pictures_every=3,
    )
    train(run, method)
    assert evaluated == [0, 5]  # every 0: only before and after
    assert drawn == [0, 3, 5]
    assert lines(tmp_path / "toy")[-1]["eval/x/mean"] == 5.0
    none = Hooks(pictures=draw)
    assert not any(none.pictures_due(step, 5) for step in range(6))


def test_averaged_weights_are_those_of_the_average(toy: ModuleType, tmp_path: Path):
    run, method = start(toy, tmp_path)
    train(run, method)
    raw = {name: weight.clone() for name, weight in run.policy.state_dict().items()}
    with run.averaged_weights() as kind:
        assert kind == "ema"
        assert all(torch.equal(weight, run.ema.weights[name]) for name, weight in run.policy.state_dict().items())
    assert all(torch.equal(weight, raw[name]) for name, weight in run.policy.state_dict().items())
    assert any(not torch.equal(run.ema.weights[name], raw[name]) for name in raw)
    run.ema = None
    with run.averaged_weights() as kind:
        assert kind == "raw"
        assert not torch.is_grad_enabled()


def test_other_states_can_be_registered(toy: ModuleType, tmp_path: Path):
    class Counter:
        value = 0

        def state_dict(self) -> dict[str, int]:
            return {"value": self.value}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.value = state["value"]

    run, method = start(toy, tmp_path, steps=2)
    counter = Counter()
    counter.value = 41
    run.register("counter", counter)
    train(run, method)
    run, method = start(toy, tmp_path, steps=2, resume=True)
    fresh = Counter()
    run.register("counter", fresh)
    train(run, method)
    assert fresh.value == 41
