"""Who asks for what: draws, texts, classes, and whether a text reaches the text encoders."""

from dataclasses import replace

import pytest
import torch

from align.config.directions import Arc, Listed
from align.config.group_relative import Grpo
from align.config.pipeline import PipelineConfig
from align.config.shaping import Directional, DrawnDirection
from align.config.shared import RewardConfig
from align.errors import AlignError
from align.shaping.directions import from_integers
from diffusion.config import DirectionsConfig, EmbeddingCondition, PromptCondition, ShownConfig
from diffusion.directions.ask import Asker, means_by_class
from diffusion.directions.deploy import asked_direction
from diffusion.directions.evaluate import first_prompts, under_directions
from diffusion.directions.readable import check_readable, with_directions
from diffusion.prompts import PromptSet

from ..models.assembled import RUN
from ..models.config import miniature_run
from ..models.miniature import miniature

OBJECTIVES = (RewardConfig(function="brightness"), RewardConfig(function="contrast", weight=0.3))
PIPELINE = PipelineConfig(weights=DrawnDirection(), combine=Directional(), base=Grpo(scale="none"))
PROMPT = PromptCondition(template="{brightness} {contrast}")


def run(condition=None, sample=None, base=RUN, **shown):
    """A run with two objectives and a metric."""
    directions = DirectionsConfig(
        sample=sample or Arc(), condition=condition or PROMPT, shown=ShownConfig(**{"count": 3, **shown})
    )
    rewards = (*OBJECTIVES, RewardConfig(function="sharpness", weight=0.0))
    return replace(base, rewards=rewards, pipeline=PIPELINE, directions=directions)


def asker(*arguments, **changes) -> Asker:
    found = Asker.of(run(*arguments, **changes))
    assert found is not None
    return found


def test_the_objectives_are_the_rewards_with_a_weight():
    found = asker()
    assert found.names == ("brightness", "contrast")
    assert found.shown == ((100, 0), (71, 71), (0, 100))
    assert Asker.of(RUN) is None


def test_a_groups_direction_depends_on_seed_and_group_alone():
    """So whoever has a row of the group, in whatever company, finds the same one."""
    found, group_ids = asker(), torch.tensor([9, 4, 9, 5])
    whole = found.weights(group_ids)
    for row in range(4):
        alone = found.weights(group_ids[row : row + 1])
        assert [whole[name][row] for name in found.names] == [alone[name][0] for name in found.names]
        expected = from_integers(found.direction(int(group_ids[row]))).tolist()
        assert [float(whole[name][row]) for name in found.names] == expected
    assert len({found.direction(group) for group in range(50)}) > 30
    assert replace(found, seed=1).direction(4) != found.direction(4)


def test_some_groups_are_told_nothing_and_are_scored_all_the_same():
    found = asker(EmbeddingCondition(dropout=0.2))
    told = [found.told(group) for group in range(200)]
    assert 20 < told.count(None) < 60  # 40 expected, deviation 5.7
    assert all(vector in (None, found.direction(group)) for group, vector in enumerate(told))
    assert None not in [asker().told(group) for group in range(50)]


def test_a_class_is_the_nearest_shown_direction():
    """Between 0 and 45 degrees, 22.5 is the border; a label names what is asked for."""
    found = asker(
        sample=Listed(directions=({"brightness": 1.0, "contrast": 0.3}, {"brightness": 1.0, "contrast": 0.5}))
    )
    found = replace(found, shown=((100, 0), (71, 71)))
    group_ids = torch.arange(40)
    near = {found.direction(group): label for group, label in enumerate(found.classes(group_ids))}
    assert near == {(96, 29): "brightness 100", (89, 45): "brightness 71, contrast 71"}


def test_means_of_a_step_by_class():
    values = torch.tensor([[1.0, 5.0], [3.0, float("nan")], [7.0, float("nan")]])
    found = means_by_class(("a", "b"), values, ["x", "x", "y"])
    assert found == {"directions/x/a": 2.0, "directions/x/b": 5.0, "directions/y/a": 7.0}


def test_what_the_text_encoders_read():
    assert asker().texts(["a red circle"], (80, -60)) == ("80 -60 a red circle",)
    after = PromptCondition(position="after")
    assert asker(after).texts(["a red circle"], (80, 60)) == ("a red circle brightness 80, contrast 60.",)
    assert asker(EmbeddingCondition()).texts(["a red circle"], (80, 60)) == ("a red circle",)


def test_a_row_of_a_prompt_is_its_text_with_the_numbers():
    model = miniature()
    rows = asker().encode(model, ["a red circle", "a red circle"], [(100, 0), (0, 100)])
    assert torch.equal(rows["pooled"][0], model.encode(["100 0 a red circle"])["pooled"][0])
    assert not torch.equal(rows["pooled"][0], rows["pooled"][1])


def test_a_row_of_an_embedding_is_the_unit_vector_of_the_integers():
    rows = asker(EmbeddingCondition()).encode(miniature(), ["a red circle"] * 2, [(71, 71), None])
    assert rows["direction"].tolist() == [pytest.approx([0.5**0.5] * 2), [0.0, 0.0]]
    assert torch.equal(rows["pooled"][0], rows["pooled"][1])


def test_heldout_prompts_under_every_direction():
    prompts = PromptSet(prompts=("p", "q", "r"), columns={"class": ("x", "x", "y")})
    shown = under_directions(first_prompts(prompts, 2), asker())
    assert shown.prompts == ("p", "r") * 3
    assert shown.columns["class"][::2] == ("brightness 100", "brightness 71, contrast 71", "contrast 100")


def test_texts_that_do_not_reach_the_text_encoders(tmp_path):
    """The miniature reads 14 tokens, two of them marks. The direction takes 4 to 6 of them in few words, 30 in many."""
    base = miniature_run(tmp_path)
    short = run(base=base)
    check_readable(short, "a red circle")
    (longest,) = with_directions(short, {"x": ["a red circle"]})["x"]
    assert longest.endswith(" a red circle")
    assert len(longest) == len("71 71 a red circle")  # 100 0 has as many, and no direction of the arc has more
    long = run(PromptCondition(template="as bright as {brightness} and as full of contrast as {contrast}"), base=base)
    with pytest.raises(AlignError, match="as the same text"):
        check_readable(long, "a red circle")
    check_readable(run(EmbeddingCondition(), base=base), "a red circle")


def test_what_generate_asks_for(caplog):
    found = asked_direction(run(), "brightness=3,contrast=4")
    assert found is not None
    assert (found.vector, found.label) == ((60, 80), "brightness 60, contrast 80")
    assert caplog.text == ""
    asked_direction(run(), "brightness=1,contrast=-1")
    assert "45 degrees beyond the directions that were trained" in caplog.text
    assert asked_direction(RUN, None) is None
    free = asked_direction(run(EmbeddingCondition()), None)
    assert free is not None
    assert free.label == "none"


@pytest.mark.parametrize(
    ("config", "direction", "message"),
    [
        (RUN, "brightness=1", "was not trained to follow directions"),
        (run(), None, "none is given"),
        (run(EmbeddingCondition(dropout=0.0)), None, "none is given"),
        (run(), "brightnes=1", "Did you mean"),
        (run(), "sharpness=1", "is no objective"),
        (run(), "brightness=0", "is no direction"),
    ],
)
def test_what_generate_refuses(config, direction, message):
    with pytest.raises(AlignError, match=message):
        asked_direction(config, direction)
