"""Teachers in folders: which are refused, that an adapter is switched off, that a killed computation goes on."""

import json
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.testing import assert_close

from align.config.shared import LoraConfig
from align.errors import AlignError
from preference import teach as teach_module
from preference.config import (
    AdpaConfig,
    CausalLm,
    DckdConfig,
    PairsConfig,
    PreferenceRun,
    TeacherConfig,
    TwoTeachersConfig,
)
from preference.layout import Group
from preference.models import load_causal_lm
from preference.models.load import load_tokenizer
from preference.records import TeacherRecords
from preference.records_header import read_header
from preference.sources import heldout_texts
from preference.taught_records import heldout_records
from preference.teach import teach
from preference.teachers import check_tokenizers, load_teachers
from preference.tokenise import tokenise_pairs

from .pair_data import moved
from .test_student_answers import turns, write
from .tokenizers import llama_like, model_folder, qwen_like


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A student, two teachers, an adapter of the first, and pairs."""
    root = tmp_path_factory.mktemp("teachers")
    for name, seed in (("student", 0), ("before", 1), ("after", 2)):
        model_folder(root / name, seed=seed)
    model_folder(root / "other", "qwen")
    model = load_causal_lm(CausalLm(path=str(root / "before")))
    policy = model.policy(LoraConfig(rank=2, alpha=4.0, targets="all_linear"), seed=0)
    moved(policy, by=0.1)
    model.save(root / "adapter", policy)
    rows = [
        {
            "prompt": turns("user", f"cat {row}"),
            "chosen": turns("assistant", "the cat " * (1 + row % 3)),
            "rejected": turns("assistant", "in " * (1 + row % 2)),
        }
        for row in range(7)
    ]
    write(root / "pairs.jsonl", rows)
    return root


def run_of(root, algorithm):
    return PreferenceRun(
        model=CausalLm(path=str(root / "student")),
        data=PairsConfig(train=str(root / "pairs.jsonl"), heldout=None, pairs_per_step=2),
        algorithm=algorithm,
    )


def dckd(root, folder, **changes):
    teacher = TeacherConfig(path=str(root / "after"), records=str(folder), top_k=4, batch_size=2, **changes)
    return run_of(root, DckdConfig(teacher=teacher))


def test_records_are_those_of_the_model_itself(material, tmp_path):
    """Of pair 3, the k likeliest ids and their log-probabilities by the teacher's own logits."""
    config = dckd(material, tmp_path / "records", precision="float32")
    lines = []
    teach(config, lines.append)
    header = read_header(tmp_path / "records")
    records = TeacherRecords.open(tmp_path / "records", header)
    tokenizer = load_tokenizer(config.model)
    prompt = tokenizer.apply_chat_template(turns("user", "cat 3"), add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template([*turns("user", "cat 3"), *turns("assistant", "the cat ")])["input_ids"]
    answer = whole[len(prompt) :]
    other = tokenizer.apply_chat_template([*turns("user", "cat 3"), *turns("assistant", "in in ")])["input_ids"]
    labels = torch.tensor([*answer, *other[len(prompt) :]])
    found = records.read(torch.tensor([3]), labels)
    network = load_causal_lm(CausalLm(path=str(material / "after"))).network
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([whole])).logits[0, len(prompt) - 1 : -1, : len(tokenizer)]
    expected = logits.log_softmax(dim=-1).topk(4)
    assert header.vocabulary == len(tokenizer)  # the model embeds three more
    assert torch.equal(found["ids"][: len(answer)], expected.indices)
    assert_close(found["log_probs"][: len(answer)], expected.values, rtol=0, atol=1e-5)
    rest = 1 - expected.values.exp().sum(dim=-1)
    assert_close(found["log_rest"][: len(answer)].exp(), rest, rtol=0, atol=1e-5)
    assert any("teacher records: 7 pairs" in line for line in lines)


def test_held_out_pairs_are_recorded_beside_the_others(material, tmp_path):
    """And again only where the option says so; records of other held-out pairs are refused."""
    rows = [json.loads(line) for line in (material / "pairs.jsonl").read_text().splitlines()]
    write(tmp_path / "heldout.jsonl", rows[:3])

    def run(records, **changes):
        config = dckd(material, tmp_path / records, **changes)
        return replace(config, data=replace(config.data, heldout=str(tmp_path / "heldout.jsonl")))

    config = run("records")
    tokens = tokenise_pairs(heldout_texts(config), load_tokenizer(config.model), config.data)
    assert heldout_records(config, tokens) is None
    teach(config, lambda line: None)
    found = heldout_records(config, tokens)
    assert (found.header.pairs, len(found.missing())) == (3, 0)
    assert heldout_records(config, None) is None
    assert heldout_records(run("records", heldout=False), tokens) is None
    write(tmp_path / "heldout.jsonl", rows[1:4])
    changed = tokenise_pairs(heldout_texts(config), load_tokenizer(config.model), config.data)
    with pytest.raises(AlignError, match=r"do not belong to this run:\ndata"):
        heldout_records(config, changed)
    teach(run("alone", heldout=False), lambda line: None)
    assert not (tmp_path / "alone" / "heldout").exists()


class StoppedError(Exception):
    """Stands for a kill."""


def test_a_killed_computation_goes_on(material, tmp_path, monkeypatch):
    """Every part is written whole; the second run computes the other pairs, the third none, and the numbers are one."""
    config = dckd(material, tmp_path / "records")
    whole = teach(dckd(material, tmp_path / "whole"), lambda line: None)
    AcceleratorState._reset_state(reset_partial_state=True)
    written = []

    def write_and_stop(part, folder):
        if len(written) == 2:
            raise StoppedError
        written.append(part.rows)
        return original(part, folder)

    original = teach_module.Part.write
    monkeypatch.setattr(teach_module.Part, "write", write_and_stop)
    monkeypatch.setattr(teach_module.Part, "size", property(lambda part: 2**40))  # a part for each batch
    with pytest.raises(StoppedError):
        teach(config, lambda line: None)
    monkeypatch.undo()
    header = read_header(tmp_path / "records")
    assert TeacherRecords(tmp_path / "records", header).missing().tolist() == [4, 5, 6]
    lines = []
    for _ in range(2):
        AcceleratorState._reset_state(reset_partial_state=True)
        teach(config, lines.append)
    assert any(line.startswith("3 of 7 pairs to read") for line in lines)
    assert "all records are there already" in lines
    one, other = (TeacherRecords(path, header) for path in (tmp_path / "records", whole))
    for row in range(7):
        for name in ("labels", "ids", "log_probs", "log_rest"):
            parts = [records._tokens(row, name) for records in (one, other)]
            assert_close(parts[0], parts[1], rtol=0, atol=1e-5)


def test_records_of_another_teacher_are_not_mixed(material, tmp_path):
    teach(dckd(material, tmp_path / "records"), lambda line: None)
    AcceleratorState._reset_state(reset_partial_state=True)
    config = dckd(material, tmp_path / "records")
    teacher = replace(config.algorithm.teacher, path=str(material / "before"))
    with pytest.raises(AlignError, match=r"\nweights \(the aligned teacher's weights\)"):
        teach(replace(config, algorithm=replace(config.algorithm, teacher=teacher)), lambda line: None)


def test_a_teacher_with_another_vocabulary_is_refused(material):
    config = TeacherConfig(path=str(material / "other"))
    with pytest.raises(AlignError, match="has another vocabulary than the student") as caught:
        check_tokenizers(config, llama_like())
    assert "ids mean different tokens (student and teacher): 0: '<s>' and '<|endoftext|>'" in caught.value.message
    assert "same tokenizer" in caught.value.way_out
    reference = TwoTeachersConfig(path=str(material / "after"), reference=str(material / "other"))
    with pytest.raises(AlignError, match="other"):
        check_tokenizers(reference, llama_like())
    assert check_tokenizers(TeacherConfig(path=str(material / "after")), llama_like()) == []
    templated = llama_like(template="{{ messages }}")
    assert "another chat template" in check_tokenizers(TeacherConfig(path=str(material / "after")), templated)[0]
    with pytest.raises(AlignError):
        check_tokenizers(TeacherConfig(path=str(material / "after")), qwen_like())


@pytest.mark.parametrize("support", ["top_k", "union"])
def test_an_adapter_is_switched_off_for_the_reference(material, support):
    """One model with its adapter, against the merged model and the one without as two models: the same ratios."""
    settings = {"top_k": 4, "precision": "float32", "support": support}
    one = TwoTeachersConfig(path=str(material / "before"), adapter=str(material / "adapter"), **settings)
    two = replace(one, reference=str(material / "before"))
    groups = [Group(prompt=torch.tensor([5, 6]), responses=(torch.tensor([7, 8, 9]),))]
    found = []
    for config in (one, two):
        teachers = load_teachers(config, llama_like(), "cpu")
        found.append(teachers.read(groups, config, teachers.plan([groups], 5)).tensors)
    assert load_teachers(one, llama_like(), "cpu").weights != teachers.reference_weights
    assert torch.equal(found[0]["ids"], found[1]["ids"])
    assert found[0]["ids"].shape == (3, 8 if support == "union" else 4)
    assert_close(found[0]["ratios"], found[1]["ratios"], rtol=0, atol=1e-5)
    assert float(found[0]["ratios"].abs().max()) > 1e-3


def test_what_has_no_teacher_has_nothing_to_compute(material):
    with pytest.raises(AlignError, match="has no teacher"):
        teach(PreferenceRun(), lambda line: None)
    config = run_of(material, AdpaConfig(teacher=TwoTeachersConfig(path="x", adapter=str(material / "student"))))
    with pytest.raises(AlignError):
        teach(config, lambda line: None)
