"""Starting processes: a launch that started fewer than were asked for is said aloud."""

import logging

import pytest

from align.engine import distributed


def test_a_launch_of_one_process_where_several_were_asked_for_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What `accelerate launch --num_processes 2` leaves in the environment on a machine without a GPU."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with caplog.at_level(logging.WARNING):
        distributed._warn_if_alone()
    assert "two_cpu_processes.yaml" in caplog.text


def test_real_launches_are_not_scolded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with caplog.at_level(logging.WARNING):
        distributed._warn_if_alone()
    assert caplog.text == ""
