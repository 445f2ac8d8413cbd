"""Several rewards over samples, and every way in which one of them can fail without ending the run."""

import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from align.config.shared import RewardConfig
from align.rewards.outcome import ScorerStopped
from align.rewards.scorer import AllUnscored, Scorer
from align.types import Samples

CONTRACT = "A scorer must return one score per sample, in order; use nan for a sample it cannot score."


def samples(n=3, **columns):
    return Samples(
        index=torch.arange(n),
        group_ids=torch.zeros(n, dtype=torch.int64),
        prompts=[f"prompt {i}" for i in range(n)],
        images=[Image.new("RGB", (4, 4), (85 * i,) * 3) for i in range(n)],
        columns=columns,
    )


@pytest.fixture
def scorer(tmp_path):
    """Scorer of one function, given as its body."""

    def make(*bodies, signature="*, images, prompts, **columns", **fields):
        (tmp_path / "given.py").write_text(
            "import math\nimport numpy as np\nimport torch\n"
            + "\n".join(f"def f{i}({signature}):\n    {body}\n" for i, body in enumerate(bodies))
        )
        return Scorer([RewardConfig(function=f"given.py:f{i}", **fields) for i in range(len(bodies))], tmp_path)

    return make


def test_table_by_hand():
    """Grey 0, 85, 170 of 255: brightness 0, 1/3, 2/3; contrast of a plain picture 0."""
    rewards = [RewardConfig(function="brightness", weight=2.0), RewardConfig(function="contrast", name="c", weight=0.0)]
    table = Scorer(rewards).score(samples())
    assert table.names == ("brightness", "c")
    assert table.weights.tolist() == [2.0, 0.0]
    assert table.values.dtype == torch.float32
    torch.testing.assert_close(table.values, torch.tensor([[0.0, 0.0], [1 / 3, 0.0], [2 / 3, 0.0]]))
    assert table.problems == {}


def test_prompts_and_columns_reach_the_function_by_name(scorer):
    table = scorer("return [float(p[-1]) + w for p, w in zip(prompts, columns['worth'])]").score(
        samples(worth=[5, 6, 7])
    )
    assert table.values.flatten().tolist() == [5.0, 7.0, 9.0]


def test_a_function_without_keywords_to_spare_gets_what_it_accepts(scorer):
    table = scorer("return worth", signature="*, images, worth").score(samples(worth=[5, 6, 7], other=[0, 0, 0]))
    assert table.values.flatten().tolist() == [5.0, 6.0, 7.0]


def test_a_column_cannot_replace_the_samples(scorer):
    table = scorer("return [float(len(p)) for p in prompts]").score(samples(prompts=["", "", ""]))
    assert table.values.flatten().tolist() == [8.0, 8.0, 8.0]


def test_options_are_keywords(scorer):
    table = scorer("return [floor] * 3", signature="*, images, floor", options={"floor": 0.25}).score(samples())
    assert table.values.flatten().tolist() == [0.25] * 3


def test_texts_are_scored_like_pictures(scorer):
    texts = Samples(
        index=torch.arange(2), group_ids=torch.arange(2), prompts=["a", "b"], completions=["long answer", "short"]
    )
    table = scorer("return [len(text) for text in completions]", signature="*, completions, **columns").score(texts)
    assert table.values.flatten().tolist() == [11.0, 5.0]


@pytest.mark.parametrize(
    "returned",
    [
        "[True, 0, 0.5]",
        "(1, 0.0, 0.5)",
        "np.array([1.0, 0.0, 0.5])",
        "np.array([[1.0], [0.0], [0.5]])",
        "[np.float32(1), np.int64(0), np.array(0.5)]",
        "torch.tensor([1.0, 0.0, 0.5], requires_grad=True)",
        "torch.tensor([[1.0], [0.0], [0.5]], dtype=torch.bfloat16)",
        "[torch.tensor(True), torch.tensor(0), torch.tensor([0.5])]",
        "(x for x in (1, 0, 0.5))",
    ],
)
def test_numbers_of_every_library(scorer, returned):
    table = scorer(f"return {returned}").score(samples())
    assert table.values.flatten().tolist() == [1.0, 0.0, 0.5]
    assert table.problems == {}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", "returned None: it could not score the sample"),
        ("math.nan", "returned nan: it could not score the sample"),
        ("-math.inf", "returned infinity"),
        ("1e39", "returned a number beyond float32"),
        ("10**400", "returned a number beyond float32"),
        ("'0.5'", "returned a str instead of a number"),
        ("[1, 2]", "returned a list instead of a number"),
        ("1j", "returned a complex instead of a number"),
        ("torch.ones(2)", "returned a Tensor instead of a number"),
        ("np.ones(2)", "returned a ndarray instead of a number"),
    ],
)
def test_one_bad_number_costs_one_sample(scorer, returned, message):
    table = scorer(f"return [1.0, {returned}, 3.0]").score(samples())
    first, second, third = table.values.flatten().tolist()
    assert (first, third) == (1.0, 3.0)
    assert math.isnan(second)
    assert table.problems == {"f0": {message: 1}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1.0] * 12", f"returned 12 scores for 3 samples. {CONTRACT}"),
        ("return []", f"returned 0 scores for 3 samples. {CONTRACT}"),
        ("return 1.0", f"returned a float. {CONTRACT}"),
        ("return None", f"returned a NoneType. {CONTRACT}"),
        ("return 'abc'", f"returned a str. {CONTRACT}"),
        ("return {0: 1.0, 1: 1.0, 2: 1.0}", f"returned a dict. {CONTRACT}"),
        ("return torch.tensor(1.0)", "returned a Tensor that cannot be read"),
        ("raise ValueError('no mask')", "raised ValueError: no mask"),
        ("return [prompts[7]]", "raised IndexError: list index out of range"),
        ("return missing", "raised NameError: name 'missing' is not defined"),
    ],
)
def test_a_failed_call_costs_all_samples_of_that_reward_only(scorer, body, message):
    table = scorer(body, "return [1.0, 2.0, 3.0]").score(samples())
    assert table.values[:, 0].isnan().all()
    assert table.values[:, 1].tolist() == [1.0, 2.0, 3.0]
    ((found, count),) = table.problems["f0"].items()
    assert found.startswith(message)
    assert count == 3
    assert "f1" not in table.problems


def test_each_message_is_logged_once(scorer, caplog):
    judge = scorer("return [1.0] * 12", "return [None, None, 1.0]")
    with caplog.at_level(logging.WARNING, "align.rewards"):
        judge.score(samples())
        judge.score(samples())
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert texts[0].startswith(f"reward 'f0' returned 12 scores for 3 samples. {CONTRACT}")
    assert texts[1].startswith("reward 'f1' returned None")


def test_an_exception_is_logged_with_its_place(scorer, caplog):
    with caplog.at_level(logging.WARNING, "align.rewards"):
        scorer("raise ValueError('no mask')").score(samples())
    assert "given.py" in caplog.text
    assert "ValueError: no mask" in caplog.text


def test_an_interrupt_is_the_users_and_passes(scorer):
    with pytest.raises(KeyboardInterrupt):
        scorer("raise KeyboardInterrupt").score(samples())


def test_a_reward_may_give_a_reason_for_each_sample(scorer):
    table = scorer("from align.rewards.outcome import Unscored as U; return [U('was dark'), 2.0, U('was dark')]").score(
        samples()
    )
    assert table.values.flatten().isnan().tolist() == [True, False, True]
    assert table.problems == {"f0": {"was dark": 2}}


def test_a_reward_may_stop_the_run(scorer):
    with pytest.raises(ScorerStopped, match="no judge"):
        scorer("from align.rewards.outcome import ScorerStopped as S; raise S('no judge', 'call one')").score(samples())


def test_a_long_message_is_cut(scorer):
    table = scorer("raise ValueError('x' * 5000)").score(samples())
    assert len(next(iter(table.problems["f0"]))) == 300


def test_no_rewards_and_no_samples(scorer):
    assert Scorer([]).score(samples()).values.shape == (3, 0)
    assert scorer("return []").score(samples(0)).values.shape == (0, 1)


def test_check_before_a_run(scorer):
    judge = scorer("return answer", signature="*, images, answer")
    judge.check(["prompts", "images", "answer"])
    with pytest.raises(Exception, match="reward `f0` needs 'answer'"):
        judge.check(["prompts", "images"])


def test_a_step_without_scores_stops_with_the_reasons(scorer):
    table = scorer("raise ValueError('no mask')", "return [None, math.nan, None]").score(samples())
    error = AllUnscored(table.problems)
    assert str(error).splitlines() == [
        "no sample of this step could be scored, so there is nothing to learn from.",
        "  reward 'f0' raised ValueError: no mask (3 samples)",
        "  reward 'f1' returned None: it could not score the sample (2 samples)",
        "  reward 'f1' returned nan: it could not score the sample (1 samples)",
        "Repair the reward; weight 0 makes it a metric, which may fail.",
    ]


def test_numpy_warnings_are_not_provoked():
    """An array of one number is read by `item`; float() of it is deprecated in numpy."""
    from align.rewards.scorer import _as_number

    assert _as_number(np.array([[0.5]])) == (0.5, "")
