"""metrics.jsonl, trackers, the progress line, signals."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats
from PIL import Image

from align.engine import trackers as module
from align.engine.interrupt import Interrupt
from align.engine.metrics_file import MetricsFile, json_number
from align.engine.progress import Bar, Lines, Silent, clock, headline, open_progress
from align.engine.trackers import Picture, TrackedRun, Trackers, check_trackers
from align.errors import AlignError

PICTURE = Picture(image=Image.new("RGB", (4, 3), (255, 0, 0)), caption="a red tile")


def test_lines_are_strict_json(tmp_path: Path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.append(3, {"reward": 0.1, "nan": math.nan, "inf": -math.inf, "count": 7, "numpy": np.float32(0.5)})
    file.flush_to_disk()
    file.append(4, {"tensor": torch.tensor(2.0)})

    def refuse(text: str) -> None:
        raise ValueError(text)

    first, second = (tmp_path / "metrics.jsonl").read_text().splitlines()  # written although the file is still open
    assert json.loads(first, parse_constant=refuse) == {
        "step": 3, "reward": 0.1, "nan": None, "inf": None, "count": 7, "numpy": 0.5,
    }  # fmt: skip
    assert json.loads(second) == {"step": 4, "tensor": 2.0}
    file.close()


@given(floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_every_bit(value: float):
    assert math.copysign(1, json.loads(json.dumps(json_number(value)))) == math.copysign(1, value)
    assert json.loads(json.dumps(json_number(value))) == value


def tracked(folder: Path, resume_step: int | None = None) -> TrackedRun:
    return TrackedRun(folder=folder, project="p", config={"seed": 0}, resume_step=resume_step)


def test_tensorboard_holds_numbers_and_pictures(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = Trackers(["tensorboard"], tracked(tmp_path))
    trackers.log(1, {"reward": 0.5})
    trackers.log(2, {"reward": 0.75})
    trackers.pictures(2, "samples", [PICTURE])
    trackers.pictures(2, "strip", [])
    trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward")] == [(1, 0.5), (2, 0.75)]
    shown = events.Images("samples/000")[0]
    assert Image.open(io.BytesIO(shown.encoded_image_string)).getpixel((0, 0)) == (255, 0, 0)


def test_a_resumed_tensorboard_hides_what_is_run_again(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resume_step, steps in ((None, (1, 2, 3)), (1, (2, 3))):
        trackers = Trackers(["tensorboard"], tracked(tmp_path, resume_step))
        for step in steps:
            trackers.log(step, {"reward": float(step + 10 * (resume_step or 0))})
        trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward")] == [(1, 1.0), (2, 12.0), (3, 13.0)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_tracker_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda package: None if package == name else object())
    with pytest.raises(AlignError, match=rf"{name}, which is not installed[\s\S]*align-suite\[{name}\]"):
        check_trackers(["tensorboard", name])
    check_trackers(["tensorboard"])


class FakeRun:
    """Stands for the run object of wandb and trackio; remembers what it was told."""

    def __init__(self, **options: object) -> None:
        self.options, self.logged, self.finished = options, [], False

    def define_metric(self, *_: object, **__: object) -> None: ...

    def log(self, values: dict[str, object], step: int | None = None) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def fake_library(name: str, monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    runs: list[FakeRun] = []
    library = ModuleType(name)
    library.init = lambda **options: runs.append(FakeRun(**options)) or runs[-1]
    library.Image = lambda image, caption: (image.size, caption)
    monkeypatch.setitem(sys.modules, name, library)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda package: object())
    return runs


def test_wandb_is_told_numbers_pictures_and_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = fake_library("wandb", monkeypatch)
    for _ in range(2):
        trackers = Trackers(["wandb"], tracked(tmp_path))
        trackers.log(5, {"reward": 0.5})
        trackers.pictures(5, "samples", [PICTURE])
        trackers.close()
    assert runs[0].logged == [
        (None, {"step": 5, "reward": 0.5}),
        (None, {"step": 5, "samples": [((4, 3), "a red tile")]}),
    ]
    assert runs[0].finished
    assert runs[0].options["id"] == runs[1].options["id"]
    assert runs[0].options["project"] == "p"


def test_trackio_is_told_numbers_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = fake_library("trackio", monkeypatch)
    trackers = Trackers(["trackio"], tracked(tmp_path))
    trackers.log(5, {"reward": 0.5})
    trackers.pictures(5, "samples", [PICTURE])
    trackers.close()
    assert runs[0].logged == [(5, {"reward": 0.5}), (5, {"samples/000": ((4, 3), "a red tile")})]
    assert runs[0].finished


def test_a_tracker_that_fails_is_dropped_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Broken:
        calls = 0

        def __init__(self, run: TrackedRun) -> None: ...

        def log(self, step: int, metrics: object) -> None:
            Broken.calls += 1
            raise ConnectionError("no server")

    class Good:
        seen: tuple[int, ...] = ()

        def __init__(self, run: TrackedRun) -> None: ...

        def log(self, step: int, metrics: object) -> None:
            Good.seen += (step,)

        def close(self) -> None: ...

    monkeypatch.setattr(module, "TRACKERS", {"wandb": Broken, "tensorboard": Good})
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda package: object())
    trackers = Trackers(["wandb", "tensorboard"], tracked(tmp_path))
    with caplog.at_level(logging.WARNING):
        trackers.log(1, {})
        trackers.log(2, {})
        trackers.close()
    assert (Broken.calls, Good.seen) == (1, (1, 2))
    assert "tracker wandb failed and is switched off: ConnectionError: no server" in caplog.text


def test_plain_lines_are_few_and_end_with_the_last_step():
    out = io.StringIO()
    progress = open_progress(0, 50, is_main=True, out=out)
    assert isinstance(progress, Lines)
    for step in range(1, 51):
        progress.update(step, {"reward": step / 50, "images_per_second": 12.0, "other": 1.0})
    progress.note("done [0.5]")
    progress.close()
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("step 1/50  reward 0.02  images/s 12  ETA ")
    assert lines[-2].startswith("step 50/50  reward 1  images/s 12  ETA 0:00")
    assert lines[-1] == "done [0.5]"
    assert len(lines) <= 4  # a step here takes no two seconds


def test_a_terminal_gets_a_bar_and_other_processes_nothing():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    bar = open_progress(3, 10, is_main=True, out=Terminal())
    assert isinstance(bar, Bar)
    bar.update(4, {"reward": 0.25})
    assert bar._bar.tasks[0].completed == 4
    assert bar._bar.tasks[0].description == "reward 0.25"
    bar.close()
    silent = open_progress(0, 10, is_main=False)
    assert isinstance(silent, Silent)
    silent.update(1, {})
    silent.note("")
    silent.close()


def test_times_and_headlines_by_hand():
    assert [clock(seconds) for seconds in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]
    assert headline({"loss": 0.123456, "kl": 3.0}) == "loss 0.1235"


def test_signals_are_noted_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    interrupt = Interrupt()
    with interrupt.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.received == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):  # Ctrl-C after that: at once
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_do_not_listen():
    interrupt = Interrupt()

    def work() -> None:
        with interrupt.listening():
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert interrupt.received is None
