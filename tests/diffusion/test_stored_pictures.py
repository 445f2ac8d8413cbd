"""Reading stored pictures: every format, Pick-a-Pic's columns, bad rows by place and reason."""

from __future__ import annotations

import io
import json
import os

import pytest
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from align.errors import AlignError
from diffusion.config import ImagesConfig, PairsConfig
from diffusion.stored_pictures import Unusable, read_pictures

from .stored import PROMPTS, pick_a_pic_rows, png, write_pairs


def tone(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as file:
        return file.convert("RGB").getpixel((0, 0))[0]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_pairs_of_a_jsonl_file(tmp_path):
    pictures = read_pictures(PairsConfig(path=str(write_pairs(tmp_path))))
    assert len(pictures) == 12
    assert pictures.prompts[:3] == PROMPTS
    assert [tone(content) for content in pictures.contents(4)] == [204, 24]
    assert pictures.place(4).endswith("pairs.jsonl:5")
    assert pictures.left_out == {}


def test_single_pictures_and_own_column_names(tmp_path):
    path = write_pairs(tmp_path)
    assert [tone(content) for content in read_pictures(ImagesConfig(path=str(path))).contents(0)] == [200]
    turned = read_pictures(PairsConfig(path=str(path), chosen="rejected", rejected="chosen"))
    assert [tone(content) for content in turned.contents(0)] == [20, 200]


def pick_a_pic(path):
    rows = pick_a_pic_rows()
    dataset = Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]})
    if path.suffix == ".parquet":
        dataset.to_parquet(str(path))
    else:
        dataset.save_to_disk(str(path))
    return path


@pytest.mark.parametrize("name", ["pairs.parquet", "folder"])
def test_pick_a_pic_columns(tmp_path, name):
    """The label says which picture is better; a tie is left out and counted."""
    pictures = read_pictures(PairsConfig(path=str(pick_a_pic(tmp_path / name))))
    assert pictures.prompts == ("prompt 0", "prompt 1", "prompt 3")
    assert [[tone(content) for content in pictures.contents(i)] for i in range(3)] == [[200, 20], [210, 30], [220, 40]]
    assert pictures.left_out == {"no preference": 1}
    assert pictures.place(2).endswith(", row 3")


def test_image_columns_of_the_datasets_library(tmp_path):
    """Decoded nowhere: the bytes of the file are what is hashed and encoded."""
    features = Features({"prompt": Value("string"), "image": ImageFeature()})
    rows = {"prompt": ["one", "two"], "image": [{"bytes": png(90), "path": None}, {"bytes": png(91), "path": None}]}
    Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "folder"))
    pictures = read_pictures(ImagesConfig(path=str(tmp_path / "folder")))
    assert pictures.contents(1) == (png(91),)


def test_a_folder_of_splits_is_refused(tmp_path):
    part = Dataset.from_dict({"prompt": ["x"]})
    DatasetDict(train=part, test=part).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(AlignError, match=r"several splits \(train, test\)"):
        read_pictures(ImagesConfig(path=str(tmp_path / "splits")))


BAD = [
    ('{"prompt": "x", "chosen": "a.png"', "not valid JSON"),
    ("[1]", "expected an object, found \\[1\\]"),
    ('{"prompt": " ", "chosen": "a.png", "rejected": "b.png"}', "`prompt` must be a text, found ' '"),
    ('{"chosen": "a.png", "rejected": "b.png"}', "`prompt` must be a text, found None"),
    ('{"prompt": "x", "chosen": 3, "rejected": "b.png"}', "`chosen` must be the path of a picture, found 3"),
    ('{"prompt": "x", "chosen": "a.png", "rejected": "none.png"}', "`rejected`: there is no file .*none.png"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_bad_rows_are_told_with_line_and_reason_or_skipped(tmp_path, line, reason):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png(50))
    path = tmp_path / "pairs.jsonl"
    good = json.dumps({"prompt": "x", "chosen": "a.png", "rejected": "b.png"})
    path.write_text(f"{good}\n\n{line}\n{good}\n")
    with pytest.raises(AlignError, match=f"(?s)1 row that cannot be used.*pairs.jsonl:3: {reason}") as error:
        read_pictures(PairsConfig(path=str(path)))
    assert "bad_rows: skip" in error.value.way_out
    pictures = read_pictures(PairsConfig(path=str(path), bad_rows="skip"))
    assert (len(pictures), pictures.left_out) == (2, {"not usable": 1})
    assert pictures.place(1).endswith("pairs.jsonl:4")


def test_many_bad_rows_are_counted(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "", "chosen": "a", "rejected": "b"}\n' * 9)
    with pytest.raises(AlignError, match=r"(?s)9 rows.*:5: .*\.\.\. and 4 more"):
        read_pictures(PairsConfig(path=str(path)))
    with pytest.raises(AlignError, match="no row that can be used \\(9 not usable\\)"):
        read_pictures(PairsConfig(path=str(path), bad_rows="skip"))


def test_labels_that_are_no_preference_scale(tmp_path):
    rows = pick_a_pic_rows()
    rows[1]["label_0"] = 7.0
    Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]}).to_parquet(str(tmp_path / "p.parquet"))
    with pytest.raises(AlignError, match=r"row 1: `label_0` must be a number from 0 to 1, found 7\.0"):
        read_pictures(PairsConfig(path=str(tmp_path / "p.parquet")))


def test_missing_columns_and_files(tmp_path):
    path = write_pairs(tmp_path)
    with pytest.raises(AlignError, match=r"no column `choosen`\. Did you mean `chosen`"):
        read_pictures(PairsConfig(path=str(path), chosen="choosen"))
    with pytest.raises(AlignError, match="found nothing"):
        read_pictures(PairsConfig(path=str(tmp_path / "none.jsonl")))
    (tmp_path / "rows.csv").write_text("prompt\n")
    with pytest.raises(AlignError, match=r"ending in \.jsonl or \.parquet"):
        read_pictures(PairsConfig(path=str(tmp_path / "rows.csv")))
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(AlignError, match=r"broken\.parquet cannot be read"):
        read_pictures(PairsConfig(path=str(tmp_path / "broken.parquet")))
    (tmp_path / "plain").mkdir()
    with pytest.raises(AlignError, match="plain cannot be read"):
        read_pictures(PairsConfig(path=str(tmp_path / "plain")))


def test_a_picture_that_vanishes_is_met_at_its_turn(tmp_path):
    pictures = read_pictures(PairsConfig(path=str(write_pairs(tmp_path))))
    os.remove(tmp_path / "images" / "dark3.png")
    with pytest.raises(Unusable, match=r"`rejected`: .*dark3\.png"):
        pictures.contents(3)


def test_a_changed_file_is_read_again(tmp_path):
    path = write_pairs(tmp_path)
    assert len(read_pictures(PairsConfig(path=str(path)))) == 12
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:5]))
    os.utime(path, ns=(1, 1))
    assert len(read_pictures(PairsConfig(path=str(path)))) == 5
