"""Epochs become steps once rows are counted; steps and epochs do not stand together."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.config.errors import ConfigError
from align.config.lengths import refuse_epochs, steps_of, with_steps
from align.config.load import load_config, save_config
from align.config.shared import TrainingConfig
from preference.config import PreferenceRun, TextOptimizerConfig, TextTrainingConfig


@pytest.mark.parametrize(
    ("epochs", "rows", "per_step", "steps"),
    [
        (3, 120, 15, 24),  # 360 rows
        (1, 10, 4, 3),  # 10 rows: two steps read 8, the third the rest
        (0.5, 10, 4, 2),  # 5 rows
        (0.1, 30, 1, 3),  # 3 rows exactly, not 3.0000000000000004
        (0.01, 10, 4, 1),  # never less than one
    ],
)
def test_steps_by_hand(epochs, rows, per_step, steps):
    assert steps_of(epochs, rows, per_step) == steps


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 20))
def test_no_fewer_steps_do(rows, per_step, epochs):
    steps = steps_of(epochs, rows, per_step)
    assert (steps - 1) * per_step < epochs * rows <= steps * per_step


def test_the_root_has_steps_then():
    config = PreferenceRun(training=TextTrainingConfig(epochs=2.0))
    found = with_steps(config, rows=50, per_step=8)
    assert (found.training.steps, found.training.epochs) == (13, None)
    assert replace(found, training=config.training) == config
    given = PreferenceRun(training=TextTrainingConfig(steps=7))
    assert with_steps(given, rows=50, per_step=8) is given


def test_a_warm_up_is_checked_once_the_steps_are_known():
    """13 steps: a warm-up of 12 ends, one of 13 does not."""
    training = TextTrainingConfig(epochs=2.0)
    fits = PreferenceRun(training=training, optimizer=TextOptimizerConfig(warmup_updates=12))
    assert with_steps(fits, rows=50, per_step=8).training.steps == 13
    with pytest.raises(ConfigError, match="the warm-up takes 13 updates, but the run has 13"):
        with_steps(replace(fits, optimizer=TextOptimizerConfig(warmup_updates=13)), rows=50, per_step=8)


def test_methods_without_stored_rows_say_what_to_set():
    (problem,) = refuse_epochs(TrainingConfig(epochs=1.0))
    assert "draws anew" in problem.message
    assert "training.steps" in problem.way_out
    assert list(refuse_epochs(TrainingConfig())) == []


@pytest.mark.parametrize("name", ["demo/awm_tiny", "objectives/dpa_tiny"])
def test_shipped_on_line_configs_refuse_epochs(name):
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        load_config(name, ["training.epochs=1"])


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text("branch: preference\n" + text)
        return path

    return write


def loaded(path, *overrides):
    return load_config(path, overrides, check=False).training


def test_an_override_of_one_replaces_the_other(write):
    steps = write("training: {steps: 9}\n")
    assert loaded(steps).steps == 9
    assert loaded(steps, "training.epochs=3").epochs == 3.0
    epochs = write("training: {epochs: 3}\n")
    assert loaded(epochs).epochs == 3.0
    found = loaded(epochs, "training.steps=5")
    assert (found.steps, found.epochs) == (5, None)


def test_both_are_refused(write):
    with pytest.raises(ConfigError, match="both say how long the run is") as caught:
        loaded(write("training: {steps: 9, epochs: 3}\n"))
    assert "line 2" in str(caught.value)
    with pytest.raises(ConfigError, match="both say how long the run is"):
        loaded(write("seed: 1\n"), "training.steps=5", "training.epochs=3")
    with pytest.raises(ConfigError, match="greater than 0"):
        loaded(write("training: {epochs: 0}\n"))


def test_a_saved_config_has_the_steps(tmp_path):
    config = with_steps(PreferenceRun(training=TextTrainingConfig(epochs=2.0)), rows=50, per_step=8)
    saved = save_config(config, tmp_path / "config.yaml")
    assert loaded(saved) == config.training
    assert loaded(saved, "training.epochs=4").epochs == 4.0
