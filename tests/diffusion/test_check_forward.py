"""Contradictions of the methods on final pictures, and the plan of a run on stored ones."""

from __future__ import annotations

import pytest

from align.config.errors import ConfigError
from align.config.load import load_config
from align.inspect.plan import Plan
from diffusion.plan import plan

from .stored import write_pairs

ONLINE = """\
branch: diffusion
prompts: {train: train.txt, heldout: heldout.txt}
rollout: {prompts_per_step: 4, group_size: 4, num_inference_steps: 10}
rewards: [{function: brightness}]
"""
OFFLINE = """\
branch: diffusion
prompts: {heldout: heldout.txt}
algorithm: {kind: diffusion_dpo, pairs_per_step: 4, data: {path: pictures/pairs.jsonl}}
evaluation: {rewards: [{function: brightness}]}
"""


@pytest.fixture
def problems(tmp_path):
    """Function of a text and overrides -> the problems that are found, as texts."""
    (tmp_path / "train.txt").write_text("".join(f"prompt {i}\n" for i in range(6)))
    (tmp_path / "heldout.txt").write_text("another prompt\n")
    write_pairs(tmp_path / "pictures")

    def find(text, *overrides, processes=None):
        (tmp_path / "run.yaml").write_text(text)
        try:
            find.config = load_config(tmp_path / "run.yaml", overrides, processes=processes)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    find.folder = tmp_path
    return find


@pytest.mark.parametrize("kind", ["awm", "nft", "online_dpo", "rwr", "sft_best"])
def test_defaults_of_every_method_are_sound(problems, kind):
    assert problems(ONLINE, f"algorithm={{kind: {kind}}}") == []
    assert isinstance(plan(problems.config), Plan)


def test_nft_is_trained_without_guidance(problems):
    (problem,) = problems(ONLINE, "algorithm={kind: nft}", "rollout.guidance_scale=4.5")
    assert "`rollout.guidance_scale: 1`" in problem
    flux = "model={kind: flux, path: owner/model}"
    assert problems(ONLINE, "algorithm={kind: nft}", "rollout.guidance_scale=3.5", flux, "model.dtype=float32") == []


def test_nft_needs_a_bound(problems):
    (problem,) = problems(ONLINE, "algorithm={kind: nft}", "pipeline.clip=null")
    assert "Set `pipeline.clip`" in problem


def test_times_fit_the_schedule(problems):
    (problem,) = problems(ONLINE, "algorithm={kind: nft}", "rollout.num_inference_steps=8")
    assert "`algorithm.times.draws` to at most 8" in problem
    assert problems(ONLINE, "algorithm={kind: nft}", "algorithm.times.draws=8", "rollout.num_inference_steps=8") == []


@pytest.mark.parametrize("kind", ["online_dpo", "sft_best", "rwr"])
def test_a_comparison_needs_two(problems, kind):
    found = problems(ONLINE, f"algorithm={{kind: {kind}}}", "rollout.group_size=1", "rollout.prompts_per_step=6")
    assert any("compares the pictures of a prompt" in problem for problem in found)


def test_the_bare_reward_compares_nothing(problems):
    one = ("rollout.group_size=1", "pipeline.base={kind: grpo, singleton: raw}")
    assert problems(ONLINE, "algorithm={kind: rwr, weights: raw}", *one) == []


def test_beta_and_smoothing_have_ranges(problems):
    assert "beta" in problems(ONLINE, "algorithm={kind: online_dpo, beta: 0}")[0]
    assert "label_smoothing" in problems(ONLINE, "algorithm={kind: online_dpo, label_smoothing: 0.5}")[0]


def test_updates_are_cut_from_pairs(problems):
    """4 prompts, 16 pictures: 8 updates of 2 pictures would do, of pairs there are 4 only."""
    (problem,) = problems(ONLINE, "algorithm={kind: online_dpo}", "training.updates_per_rollout=8")
    assert "4 pairs a step for 8 equal updates" in problem
    assert "`rollout.prompts_per_step` to a multiple of 8 that is at least 8" in problem
    assert problems(ONLINE, "algorithm={kind: online_dpo}", processes=4) == []
    assert "5 processes" in problems(ONLINE, "algorithm={kind: online_dpo}", processes=5)[0]


def test_a_weighting_of_flows(problems):
    model = "model={kind: stable_diffusion, path: owner/model}"
    found = problems(ONLINE, model, "rollout.sampler={kind: ode}", "algorithm={kind: awm, kl_weighting: elbo}")
    assert ["elbo" in problem for problem in found] == [True]


def test_off_line_runs_need_no_rewards(problems):
    assert problems(OFFLINE) == []
    assert problems(OFFLINE, "evaluation.rewards=[]") == []
    (problem,) = problems(OFFLINE, "rewards=[{function: contrast}]")
    assert "Move them to `evaluation.rewards`" in problem


def test_off_line_runs_draw_nothing_for_training(problems):
    """The rollout's sampler does not matter where there is no rollout."""
    model = "model={kind: stable_diffusion, path: owner/model}"
    assert problems(OFFLINE, model) == []


def test_stored_pictures_are_looked_at(problems):
    assert "found nothing" in problems(OFFLINE, "algorithm.data.path=none.jsonl")[0]
    assert "no column `better`" in problems(OFFLINE, "algorithm.data.chosen=better")[0]
    (few,) = problems(OFFLINE, "algorithm.pairs_per_step=13")
    assert "a step takes 13 different pairs" in few
    assert "at most 12" in few
    path = problems.folder / "pictures" / "pairs.jsonl"
    path.write_text(path.read_text() + '{"prompt": ""}\n')
    (bad,) = problems(OFFLINE)
    assert "pairs.jsonl:13" in bad
    assert problems(OFFLINE, "algorithm.data.bad_rows=skip") == []


def test_updates_of_stored_pairs(problems):
    (problem,) = problems(OFFLINE, "training.updates_per_rollout=3")
    assert "`algorithm.pairs_per_step` to a multiple of 3" in problem


def test_the_plan_of_stored_pairs(problems):
    """4 pairs a step: 2 pictures x (3 + 1) passes = 8 for each pair, 32 a step; 50 steps use 12 pairs 16.67 times."""
    assert problems(OFFLINE, "training.steps=50", "algorithm.data.bad_rows=skip") == []
    shown = plan(problems.config)
    text = str(shown.to_json())
    titles = [section.title for section in shown.sections]
    assert "Network evaluations for one pair" in titles
    rows = {row.label: row for section in shown.sections[:-1] for row in section.rows}
    assert "rollout" not in rows
    assert "prompts" not in rows
    assert "reward" not in text.replace("by reward stay", "")
    assert (rows["together"].value, rows["together"].note) == ("8", "32 a step")
    assert rows["pairs"].note == "12 rows"
    assert rows["pairs to train on"].note == "50 steps x 4, 17 times through the 12 pairs"
    assert rows["optimiser updates"].value == "50"


def test_the_plan_of_pairs_from_rollouts(problems):
    """4 prompts x 4: 10 rollout + 2/4 x (3 + 1) = 12 evaluations for a picture; updates are of pairs."""
    assert problems(ONLINE, "algorithm={kind: online_dpo}") == []
    rows = {row.label: row for section in plan(problems.config).sections[:3] for row in section.rows}
    assert rows["together"].value == "12"
    assert rows["optimiser updates"].note == "of 4 pairs: strictly on-policy"
