"""Teacher records on disk: what comes back, what is refused and how it is named."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from align.errors import AlignError
from preference.config import AdpaConfig, DckdConfig
from preference.records import Part, TeacherRecords
from preference.records_header import bytes_per_token, check_header, read_header, stamp_of, write_header
from preference.records_summary import summary
from preference.teacher import TopK
from preference.teacher_pass import log_prob_record, ratio_record

from .pair_data import token_pairs
from .teacher_data import exact, header_of

DATA = token_pairs(4)
DCKD = exact(DckdConfig(), top_k=3)


def part_of(rows, k=3, precision=torch.float16):
    """A part with records that tell their pair and token: entry j of token t of pair r is -(r + t / 10 + j / 100)."""
    part = Part()
    for row in rows:
        answers = (DATA.chosen_ids[row], DATA.rejected_ids[row])
        labels = torch.cat(answers)
        values = -(row + torch.arange(len(labels))[:, None] / 10 + torch.arange(k) / 100)
        tensors = {
            "labels": labels.int(),
            "ids": torch.arange(k).expand(len(labels), k).to(torch.uint16),
            "log_probs": values.to(precision),
            "log_rest": values[:, 0],
        }
        part.add([row], [[len(answer) for answer in answers]], tensors, {"tokens": float(len(labels))})
    return part


def labels_of(*rows):
    return torch.cat([torch.cat([DATA.chosen_ids[row], DATA.rejected_ids[row]]) for row in rows])


def folder_with(path, *groups):
    write_header(path, header_of(DATA, DCKD))
    for rows in groups:
        part_of(rows).write(path)
    return path


def test_records_come_back_pair_by_pair_from_any_part(tmp_path):
    """Float16 keeps three digits; ids come back as indices, numbers as float32."""
    folder_with(tmp_path, [2, 0], [1, 3])
    records = TeacherRecords.open(tmp_path, header_of(DATA, DCKD))
    found = records.read(torch.tensor([3, 0]), labels_of(3, 0))
    assert found["ids"].dtype == torch.int64
    start = len(labels_of(3))
    assert_close(found["log_probs"][0], torch.tensor([-3.0, -3.01, -3.02]), rtol=1e-3, atol=0)
    assert_close(found["log_rest"][start : start + 2], torch.tensor([-0.0, -0.1]))
    assert len(found["log_rest"]) == len(labels_of(3, 0))
    assert records.sums["tokens"] == len(labels_of(0, 1, 2, 3))
    assert not list(tmp_path.glob(".*"))  # no draft is left


def test_what_is_missing_is_counted_and_refused(tmp_path):
    folder_with(tmp_path, [1, 3])
    records = TeacherRecords(tmp_path, header_of(DATA, DCKD))
    assert records.missing().tolist() == [0, 2]
    with pytest.raises(AlignError, match="2 of 4 pairs have none") as caught:
        TeacherRecords.open(tmp_path, header_of(DATA, DCKD))
    assert "align teach" in caught.value.way_out
    with pytest.raises(AlignError, match="there are no teacher records"):
        TeacherRecords.open(tmp_path / "nowhere", header_of(DATA, DCKD))


def test_records_of_other_data_are_refused_by_name(tmp_path):
    """Every field that differs is named, with both values."""
    folder_with(tmp_path, [0, 1, 2, 3])
    other = token_pairs(4, seed=1)
    with pytest.raises(AlignError) as caught:
        TeacherRecords.open(tmp_path, header_of(other, DCKD))
    assert "data (the training pairs" in caught.value.message
    assert DATA.fingerprint() in caught.value.message
    assert other.fingerprint() in caught.value.message
    for change, name in (({"top_k": 5}, "top_k"), ({"weights": "b"}, "weights"), ({"files": "y"}, "files")):
        stored = replace(header_of(DATA, DCKD), weights="a", files="x")
        with pytest.raises(AlignError, match=rf"\n{name} \("):
            check_header(tmp_path, stored, replace(stored, **change))
    check_header(tmp_path, stored, replace(stored, weights=None, files=None))  # what is not known is no difference


def test_labels_are_compared(tmp_path):
    folder_with(tmp_path, [0, 1, 2, 3])
    records = TeacherRecords.open(tmp_path, header_of(DATA, DCKD))
    with pytest.raises(AlignError, match="other tokens"):
        records.read(torch.tensor([0]), labels_of(0) + 1)


def test_broken_files_are_named(tmp_path):
    folder_with(tmp_path, [0, 1])
    (tmp_path / "part_000000002.safetensors").write_bytes(b"cut off")
    with pytest.raises(AlignError, match=r"part_000000002\.safetensors cannot be read"):
        TeacherRecords(tmp_path, header_of(DATA, DCKD))
    (tmp_path / "records.json").write_text("{}")
    with pytest.raises(AlignError, match="not the header of teacher records"):
        read_header(tmp_path)


def test_a_header_comes_back(tmp_path):
    header = replace(header_of(DATA, DCKD), weights="w", vocabulary=97)
    write_header(tmp_path, header)
    assert read_header(tmp_path) == header
    assert header.sides == ("chosen", "rejected")
    assert header_of(DATA, exact(AdpaConfig())).sides == ("rejected",)


def test_bytes_of_a_token_by_hand():
    """DCKD, 50 entries of a small vocabulary in float16: 50 (2 + 2) + 4 for the rest + 4 for the token = 208.

    ADPA on a vocabulary of 128,000: 50 (4 + 2) + 4 = 304; of both supports in float32: 100 (4 + 4) + 4 = 804.
    """
    assert bytes_per_token(DckdConfig(), 49152) == 208
    assert bytes_per_token(AdpaConfig(), 128000) == 304
    assert bytes_per_token(exact(AdpaConfig(), support="union"), None) == 804


def test_a_stamp_sees_weights_that_changed(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    weights = bytearray(3 << 20)
    (folder / "model.safetensors").write_bytes(weights)
    before = stamp_of(str(folder))
    assert before == stamp_of(str(folder))
    weights[3 << 19] = 1
    (folder / "model.safetensors").write_bytes(weights)
    assert stamp_of(str(folder)) != before
    assert stamp_of("owner/on-the-hub") is None


def top(*log_probs):
    return TopK(ids=torch.tensor([[4, 6]]), log_probs=torch.tensor([log_probs]).log(), log_rest=torch.zeros(1))


def test_what_is_read_of_a_token_by_hand(tmp_path):
    """pi_dpo = 0.5, 0.25 and pi_ref = 0.25, 0.5 at two entries: A = log 2, -log 2.

    Kept mass 0.75; gain 0.5 log 2 - 0.25 log 2 = 0.25 log 2; one of two entries is below 0, none above 1.
    """
    log2 = 0.6931472
    found = ratio_record(top(0.5, 0.25), top(0.25, 0.5))
    assert_close(found.tensors["ratios"], torch.tensor([[log2, -log2]]))
    assert found.sums == pytest.approx(
        {"tokens": 1, "kept": 0.75, "gain": 0.25 * log2, "entries": 2, "negative": 1, "above_one": 0}
    )
    once = ratio_record(top(0.5, 0.25), top(0.25, 0.5), torch.tensor([[True, False]]))
    assert_close(once.tensors["ratios"], torch.tensor([[log2, 0.0]]))
    assert once.sums["entries"] == 1
    assert log_prob_record(top(0.5, 0.25)).sums == pytest.approx({"tokens": 1, "kept": 0.75})


def test_the_summary_says_what_the_released_clip_would_cut(tmp_path):
    write_header(tmp_path, header_of(DATA, exact(AdpaConfig())))
    part = part_of([0])
    part.sums = {"tokens": 10.0, "kept": 9.5, "gain": 2.0, "entries": 500.0, "negative": 250.0, "above_one": 5.0}
    part.write(tmp_path)
    text = "\n".join(summary(TeacherRecords(tmp_path, header_of(DATA, exact(AdpaConfig())))))
    assert "hold 0.9500 of" in text
    assert "0.2000 nats a token" in text
    assert "50.0% of the entries are below 0 and 1.0% above 1" in text
