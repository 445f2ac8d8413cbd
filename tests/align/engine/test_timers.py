from __future__ import annotations

import threading

import pytest

from align.engine.timers import Timers, overhead_share


class HandClock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, start: float, end: float) -> float:
        return end - start


def test_inner_time_is_not_outer_time_by_hand():
    """1 s nowhere; rollout from 1 to 8, decode in it from 3 to 7; evaluate from 8 to 18, a rollout in it; 2 s nowhere.

    rollout = 7 - 4 = 3, decode = 4, evaluate = 10 (its rollout is part of it), step = 20 - 10 = 10.
    """
    clock = HandClock()
    timers = Timers(clock)
    clock.now = 1
    with timers.stage("rollout"):
        clock.now = 3
        with timers.stage("decode"):
            clock.now = 7
        clock.now = 8
    with timers.stage("evaluate"), timers.stage("rollout"):
        clock.now = 18
    clock.now = 20
    times = timers.finish_step()
    assert times == {"rollout": 3, "decode": 4, "evaluate": 10, "step": 10}
    assert overhead_share(times) == pytest.approx(1 - 7 / 10)
    clock.now = 21
    assert timers.finish_step() == {"step": 1}


def test_a_stage_that_raises_is_closed():
    clock = HandClock()
    timers = Timers(clock)

    def fail() -> None:
        clock.now = 2
        raise RuntimeError

    with pytest.raises(RuntimeError), timers.stage("forward"):
        fail()
    clock.now = 5
    assert timers.finish_step() == {"forward": 2, "step": 5}


def test_other_threads_are_not_measured():
    clock = HandClock()
    timers = Timers(clock)

    def work() -> None:
        with timers.stage("reward"):
            clock.now += 4

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert timers.finish_step() == {"step": 4}


def test_a_stage_may_be_open_when_a_step_ends():
    clock = HandClock()
    timers = Timers(clock)
    with timers.stage("record"):
        clock.now = 3
        assert timers.finish_step() == {"record": 3, "step": 3}
        clock.now = 5
    assert timers.finish_step() == {"record": 2, "step": 2}


def test_no_step_has_no_overhead():
    assert overhead_share({}) == 0.0
