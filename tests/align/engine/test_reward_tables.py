"""Reward tables on disk: what comes back, how much is kept, and that a resumed run writes the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.config.shared import OutputConfig
from align.engine.distributed import Processes
from align.engine.folder import RunFolder
from align.engine.reward_tables import keeps_step, read_table, table_files, write_table
from align.errors import AlignError
from align.types import RewardTable, Samples, Signal


class Several(Processes):
    """Stands for several processes: each hands in its own part, the main one hears all of them."""

    def __init__(self, parts=()):
        super().__init__()
        self.parts = parts

    def gather_objects(self, value):
        return [*self.parts, value]


@dataclass
class Collected:
    samples: Samples | None
    rewards: RewardTable | None
    signal: Signal | None


def batch(index=(0, 1, 2, 3), classes=True, advantages=None):
    """Rows of two prompts; the second reward of row 2 is missing."""
    rows = torch.tensor(index)
    values = torch.tensor([[1.0, 0.1], [2.0, 0.2], [3.0, math.nan], [4.0, 0.4]])[rows]
    columns = {"class": [["one", "one", None, None][i] for i in index]} if classes else {}
    return Collected(
        samples=Samples(
            index=rows,
            group_ids=torch.tensor([2**40, 2**40, 2**40 + 1, 2**40 + 1])[rows],
            prompts=[["ä dog", "ä dog", "a cat", "a cat"][i] for i in index],
            columns=columns,
        ),
        rewards=RewardTable(names=("a", "b"), values=values, weights=torch.tensor([1.0, 0.5])),
        signal=Signal(
            scores=torch.tensor([1.05, 2.1, math.nan, 4.2])[rows],
            advantages=torch.tensor([-1.0, 1.0, 0.0, 0.5])[rows] if advantages is None else advantages,
        ),
    )


@pytest.fixture
def folder(tmp_path):
    made = RunFolder.create(OutputConfig(directory=str(tmp_path), name="run"), default_name="x", processes=Processes())
    yield made
    made.close()


def written(folder, step=1, given=None, processes=None, **settings):
    options = {"steps": 10, "megabytes": 1.0, **settings}
    return write_table(folder, step, given or batch(), processes=processes or Processes(), **options)


def test_everything_comes_back(folder):
    """Ids above 2^32, texts that are not ASCII, gaps in rewards and scores, classes that some prompts lack."""
    found = read_table(written(folder, 7))
    assert found.step == 7
    assert found.table.names == ("a", "b")
    assert found.table.weights.tolist() == [1.0, 0.5]
    assert found.table.values[:, 0].tolist() == [1, 2, 3, 4]
    assert found.table.values[2, 1].isnan()
    assert found.group_ids.tolist() == [2**40, 2**40, 2**40 + 1, 2**40 + 1]
    assert list(found.prompts) == ["ä dog", "ä dog", "a cat", "a cat"]
    assert list(found.classes) == ["one", "one", "", ""]
    assert found.scores.isnan().tolist() == [False, False, True, False]
    assert found.advantages.tolist() == [-1.0, 1.0, 0.0, 0.5]
    assert list(read_table(written(folder, 8, batch(classes=False))).classes) == []


def test_rows_of_two_processes_are_in_global_order(folder):
    parts = []
    collector = SimpleNamespace(is_main=False, gather_objects=lambda value: parts.append(value))
    assert written(folder, 1, batch((3, 0)), collector) is None
    found = read_table(written(folder, 1, batch((2, 1)), Several(parts)))
    assert found.table.values[:, 0].tolist() == [1, 2, 3, 4]
    assert found.advantages.tolist() == [-1.0, 1.0, 0.0, 0.5]


def test_advantages_of_positions_become_their_mean(folder):
    given = batch(advantages=torch.tensor([[1.0, 3.0], [0.0, 0.0], [-1.0, 0.0], [2.0, 2.0]]))
    assert read_table(written(folder, 1, given)).advantages.tolist() == [2.0, 0.0, -0.5, 2.0]


def test_nothing_to_write(folder):
    assert written(folder, given=Collected(None, None, None)) is None
    assert written(folder, megabytes=0.0) is None
    assert table_files(folder.path) == []


def test_the_bound_by_hand():
    """1000 bytes a step, 100 steps, 0.03 MB: 30 tables fit, so every 4th is kept, step 1 among them."""
    kept = [step for step in range(1, 101) if keeps_step(step, 1000, steps=100, megabytes=0.03)]
    assert kept == list(range(1, 101, 4))


@given(size=st.integers(1, 10**6), steps=st.integers(1, 300), megabytes=st.floats(0.001, 10))
def test_tables_stay_below_the_bound(size, steps, megabytes):
    """Or there is a single one, of the first step."""
    kept = [step for step in range(1, steps + 1) if keeps_step(step, size, steps=steps, megabytes=megabytes)]
    assert kept[0] == 1
    assert len(kept) == 1 or len(kept) * size <= megabytes * 1e6


def test_files_are_found_in_order_and_cut_back(folder):
    for step in (1, 2, 10):
        written(folder, step)
    assert [path.name for path in table_files(folder.path)] == [
        "step_000001.safetensors", "step_000002.safetensors", "step_000010.safetensors",
    ]  # fmt: skip
    folder.cut_back(2)
    assert [path.name for path in table_files(folder.path)] == ["step_000001.safetensors", "step_000002.safetensors"]


def test_a_damaged_table_is_named(folder):
    path = written(folder)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(AlignError, match=r"step_000001.safetensors is no table of rewards"):
        read_table(path)
