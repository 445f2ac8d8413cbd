"""Stored rewards under other settings: what a pipeline would have made of them, where samples are, what is refused."""

import json
from types import SimpleNamespace

import pytest
import torch

from align.config.errors import ConfigError
from align.config.estimators import Remax
from align.config.group_relative import DrGrpo, Grpo
from align.config.pipeline import PipelineConfig
from align.config.shaping import Lsc, Ramp, ReferencePrompt, ScheduledWeights, SoftMin, WeightedSum
from align.config.shared import OutputConfig, RewardConfig
from align.engine.distributed import Processes
from align.engine.folder import RunFolder
from align.engine.reward_tables import write_table
from align.errors import AlignError
from align.inspect.replay.command import replay_stored
from align.inspect.replay.run import replay, reproduces, reshaped
from align.inspect.replay.settings import ReplaySettings, changed, parse_weights
from align.inspect.replay.sources import stored_evaluations, stored_file, stored_steps
from align.report.tables import write_page
from align.shaping.pipeline import SignalPipeline
from align.types import RewardTable, Samples

WEIGHTS = {"a": 1.0, "b": 0.5}
OWN = ReplaySettings(weights=WEIGHTS, pipeline=PipelineConfig(base=Grpo(), clip=None))
STEPS, ROWS = 3, 8


@pytest.fixture
def run(tmp_path):
    """A function that lets a pipeline run for three steps and returns the folder with its tables."""

    def made(pipeline=OWN.pipeline, tweak=0.0):
        folder = RunFolder.create(
            OutputConfig(directory=str(tmp_path), name="run"), default_name="x", processes=Processes()
        )
        signals = SignalPipeline(pipeline)
        generator = torch.Generator().manual_seed(0)
        for step in range(1, STEPS + 1):
            values = torch.rand(ROWS, 2, generator=generator)
            ids = step * 10 + torch.arange(ROWS) % 2
            table = RewardTable(names=("a", "b"), values=values, weights=torch.tensor(list(WEIGHTS.values())))
            signal = signals(table, ids, prompt_ids=ids % 10)
            prompts = [f"prompt {int(i) % 10}" for i in ids]
            samples = Samples(index=torch.arange(ROWS), group_ids=ids, prompts=prompts)
            signal.advantages.add_(tweak)
            batch = SimpleNamespace(samples=samples, rewards=table, signal=signal)
            write_table(folder, step, batch, steps=STEPS, megabytes=1.0, processes=Processes())
        folder.close()
        return folder.path

    return made


def config_of(settings):
    rewards = tuple(RewardConfig(function=f"my.py:{name}", weight=value) for name, value in settings.weights.items())
    return SimpleNamespace(rewards=rewards, pipeline=settings.pipeline)


def test_own_settings_give_what_was_stored(run):
    stored = stored_steps(run())
    assert [table.step for table in stored.tables] == [1, 2, 3]
    assert reproduces(stored.tables, OWN)[0]
    for step in replay(stored.tables, OWN):
        torch.testing.assert_close(step.advantages, step.before.advantages)
        assert step.change.flipped == 0
        assert step.change.correlation == pytest.approx(1)


def test_settings_that_move_with_the_steps_are_replayed_from_the_first(run):
    """A schedule and a reference per prompt remember earlier steps."""
    weights = ScheduledWeights(ramps=(Ramp(reward="b", start=0.0, end=2.0, steps=2),))
    transforms = (Lsc(reference=ReferencePrompt(samples=6)),)
    pipeline = PipelineConfig(transforms=transforms, weights=weights, base=DrGrpo())
    folder = run(pipeline)
    own = ReplaySettings(weights=WEIGHTS, pipeline=pipeline)
    assert reproduces(stored_steps(folder).tables, own)[0]
    assert not reproduces(stored_steps(folder).tables[1:], own)[0]


def test_what_cannot_be_reproduced_is_said(run):
    found, sentence = reproduces(stored_steps(run(tweak=0.5)).tables, OWN)
    assert not found
    assert "differ from the advantages that it has used" in sentence


def test_other_weights_by_hand(run):
    """Only b counts: the advantages are the z-scores of b / 2 in each group of four, n - 1 and + 1e-4."""
    stored = stored_steps(run())
    (first, *_) = replay(stored.tables, changed(OWN, weights={"a": 0.0}))
    b = 0.5 * first.before.table.values[::2, 1].double()
    expected = (b - b.mean()) / (b.std() + 1e-4)
    torch.testing.assert_close(first.advantages[::2].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first.scores, 0.5 * first.before.table.values[:, 1])


def test_settings_are_changed_as_on_the_command_line():
    found = changed(OWN, weights={"b": 2.0}, combine="soft_min", estimator="{kind: grpo, eps: 0.5}")
    assert found.weights == {"a": 1.0, "b": 2.0}
    assert found.pipeline == PipelineConfig(combine=SoftMin(), base=Grpo(eps=0.5), clip=None)
    again = changed(OWN, combine="{kind: soft_min, tau: 0.5}", overrides=["pipeline.clip=3.0"])
    assert (again.pipeline.combine, again.pipeline.clip) == (SoftMin(tau=0.5), 3.0)
    assert OWN.pipeline.combine == WeightedSum()
    with pytest.raises(ConfigError, match="Did you mean `soft_min`"):
        changed(OWN, combine="softmin")
    with pytest.raises(ConfigError, match="tua"):
        changed(OWN, combine="{kind: soft_min, tua: 0.5}")


def test_weights_on_the_command_line():
    assert parse_weights("a=1, b=-0.5") == {"a": 1.0, "b": -0.5}
    assert parse_weights(None) is None
    for text in ("a", "a=high", "=1", "a=1,"):
        with pytest.raises(AlignError, match="expected weights as"):
            parse_weights(text)


def test_what_a_table_does_not_hold_is_refused(run):
    stored = stored_steps(run())
    with pytest.raises(AlignError, match="remax needs `greedy_rewards`, which a stored table does not hold"):
        replay(stored.tables, ReplaySettings(weights=WEIGHTS, pipeline=PipelineConfig(base=Remax())))
    with pytest.raises(AlignError, match=r"step 1 cannot be replayed: .*must not be negative"):
        reshaped(stored.tables, changed(OWN, weights={"b": -1.0}))


def test_bad_questions(run):
    stored = stored_steps(run())
    with pytest.raises(AlignError, match="nothing is changed"):
        replay_stored(stored, config_of(OWN))
    with pytest.raises(AlignError, match="a weight is given for `c`"):
        replay_stored(stored, config_of(OWN), weights={"c": 1.0})


def test_runs_without_tables(tmp_path):
    with pytest.raises(AlignError, match="holds no reward table"):
        stored_steps(tmp_path)
    with pytest.raises(AlignError, match="holds no evaluation"):
        stored_evaluations(tmp_path)


def test_the_page_names_samples_and_where_to_look(run, tmp_path):
    """Only a counts instead of mostly a: the top of a step is its largest z-score of a."""
    from PIL import Image

    folder = run()
    (folder / "images" / "step_000002").mkdir(parents=True)
    for row in range(ROWS):
        Image.new("RGB", (4, 4)).save(folder / "images" / "step_000002" / f"{row:03d}.png")
    stored = stored_steps(folder)
    page = replay_stored(stored, config_of(OWN), weights={"a": 0.0})
    write_page(page, tmp_path / "out", "replay")
    record = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert "Checked" in record["check"]
    assert record["total"]["samples"] == STEPS * ROWS
    assert [step["step"] for step in record["steps"]] == [1, 2, 3]
    first, second = record["steps"][0]["top"][0], record["steps"][1]["top"][0]
    assert first["picture"] is None
    assert second["picture"].endswith(f"images/step_000002/{second['row']:03d}.png")
    before, after = second["advantage"]
    assert before == pytest.approx(float(stored.tables[1].advantages[second["row"]]))
    assert after == max(entry["advantage"][1] for entry in record["steps"][1]["top"])
    assert all(one.picture is not None for one in page.samples["Would have been pushed up more"][:2])
    assert len(page.tables[0].rows) == STEPS + 1


def test_evaluations_and_files_are_compared_with_their_own_settings(tmp_path):
    """One prompt, a up and b down: the sum 1 a + 0.5 b follows a, b alone turns everything round."""
    rows = [
        {
            "prompt": "p",
            "class": "all",
            "seed": i,
            "rewards": {"a": float(i), "b": -float(i)},
            "completion": f"text {i}",
        }
        for i in range(4)
    ]
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "step_000004.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "scores.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    page = replay_stored(stored_evaluations(tmp_path), config_of(OWN), weights={"a": 0.0})
    assert page.record["total"]["correlation"] == pytest.approx(-1)
    assert page.record["total"]["other_best"] == 1
    assert page.record["steps"][0]["top"][0]["completion"] == "text 0"
    assert "No advantages were made" in page.lead
    alone = replay_stored(stored_file(tmp_path / "scores.jsonl"), weights={"a": 2.0})
    assert alone.record["total"]["correlation"] != alone.record["total"]["correlation"]  # equal weights: a + b = 0
