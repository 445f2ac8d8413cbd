"""Linear heads on CLIP embeddings: fitted from a file of rated pictures, read back as a reward, bad files."""

import csv

import pytest
import torch

from align.config.shared import RewardConfig
from align.errors import AlignError
from align.rewards.clip import lazy_clip
from align.rewards.clip_head import HeadCard, write_head
from align.rewards.find import RewardError
from align.rewards.fit_clip_head import main, parse_attribute, read_rated
from align.rewards.load import load_reward
from align.rewards.scales import LabelScale

from .miniature import picture, save_clip

ROWS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CLIP, pictures, and ratings that are exactly linear in its embeddings; every third lacks `odd`."""
    root = tmp_path_factory.mktemp("rated")
    save_clip(root / "clip", scale=2.0)
    pictures = [picture(40, 32, seed) for seed in range(ROWS)]
    for number, one in enumerate(pictures):
        one.save(root / f"{number}.png")
    embedded = lazy_clip(str(root / "clip"), str(root / "clip"), "cpu", "float32", 8)().embed_images(pictures)
    line = embedded @ torch.linspace(-1, 1, embedded.shape[1])
    ratings = (5.5 + 3 * (line - line.mean()) / (line - line.mean()).abs().max()).tolist()
    with (root / "rated.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "nice", "odd"])
        writer.writerows([f"{i}.png", rating, "" if i % 3 else 11 - rating] for i, rating in enumerate(ratings))
    return root, pictures, ratings


def test_the_command_fits_and_the_reward_gives_ratings_back(folder, capsys):
    """8 features explain a linear rating of 24 pictures to a tenth of a point; `odd` has a third of the rows."""
    root, pictures, ratings = folder
    arguments = ["--attribute", "nice:1:10:10", "--attribute", "odd:1:10:10", "--model", str(root / "clip")]
    code = main([str(root / "rated.csv"), *arguments, "--output", str(root / "head"), "--device", "cpu"])
    assert code == 0
    assert "nice: error 0." in capsys.readouterr().out
    options = {"head": str(root / "head"), "attribute": "nice", "device": "cpu"}
    scores = load_reward(RewardConfig(function="clip_head", options=options)).function(images=pictures)
    assert scores == pytest.approx(ratings, abs=0.1)
    raw = load_reward(RewardConfig(function="clip_head", options={**options, "units": "raw"}))
    scale = LabelScale(lowest=1.0, highest=10.0, levels=10)
    assert [scale.to_label(score) for score in raw.function(images=pictures)] == pytest.approx(scores)
    assert raw.function(images=[]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option `attribute` is missing; the head rates nice, odd"),
        ({"attribute": "nise"}, "Did you mean `nice`"),
        ({"attribute": "nice", "units": "points"}, "expects one of label, raw"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, options, message):
    card = HeadCard(model="a/b", scales={"nice": LabelScale(), "odd": LabelScale()})
    write_head(tmp_path, card, torch.zeros(2, 8), torch.zeros(2))
    with pytest.raises(RewardError, match=message):
        load_reward(RewardConfig(function="clip_head", options={"head": str(tmp_path), **options}))


def test_a_head_of_another_network(folder, tmp_path):
    root, pictures, _ = folder
    write_head(
        tmp_path, HeadCard(model=str(root / "clip"), scales={"x": LabelScale()}), torch.zeros(1, 3), torch.zeros(1)
    )
    reward = load_reward(RewardConfig(function="clip_head", options={"head": str(tmp_path), "device": "cpu"}))
    with pytest.raises(AlignError, match="reads 3 features, the CLIP network gives 8"):
        reward.function(images=pictures[:1])


def test_a_folder_without_a_head(tmp_path):
    with pytest.raises(RewardError, match=r"expected head\.json"):
        load_reward(RewardConfig(function="clip_head", options={"head": str(tmp_path)}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,ugly\n0.png,3\n", "has no column `nice`"),
        ("image,nice\nnone.png,3\n", r"\.csv:2: expected a picture .*none\.png, found none"),
        ("image,nice\n0.png,3\n1.png,eleven\n", r"\.csv:3: nice must be a number, found 'eleven'"),
        ("image,nice\n0.png,11\n", "nice is 11, but its scale goes from 1 to 10"),
    ],
)
def test_files_that_cannot_be_used(folder, content, message):
    root, _, _ = folder
    (root / "bad.csv").write_text(content)
    with pytest.raises(AlignError, match=message):
        read_rated(root / "bad.csv", {"nice": LabelScale(lowest=1.0, highest=10.0, levels=10)})


def test_groups_and_gaps(folder):
    root, _, _ = folder
    (root / "grouped.csv").write_text("image,nice,group\n0.png,1,a\n1.png,,b\n2.png,2,a\n3.png,3,\n")
    _, labels, ids = read_rated(root / "grouped.csv", {"nice": LabelScale(lowest=1.0, highest=10.0, levels=10)})
    assert ids.tolist() == [0, 1, 0, 2]
    assert labels[:, 0].isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("text", ["nice", "nice:1:10", "nice:a:b:c", "nice:10:1:10"])
def test_attributes_that_are_none(text):
    with pytest.raises(AlignError, match="--attribute"):
        parse_attribute(text)


def test_the_command_says_what_is_wrong(folder, capsys):
    root, _, _ = folder
    assert main([str(root / "rated.csv"), "--attribute", "nise:1:10:10", "--output", str(root / "no")]) == 2
    assert "has no column `nise`" in capsys.readouterr().err
