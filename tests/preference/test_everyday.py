"""The shipped everyday prompts: what the script makes, and nothing held out is trained on."""

import json

from align.config.shipped import folder
from preference.prompt_sets.everyday import FORMS, rows, things, write


def test_files_are_what_the_script_makes(tmp_path):
    write(tmp_path)
    for split in ("train", "heldout"):
        shipped = folder() / "preference" / "smollm2" / f"everyday_{split}.jsonl"
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes()


def test_no_thing_is_in_both():
    """42 things a class; held out are numbers 3, 8, ..., 38 and 41: nine of each."""
    found = {split: [json.dumps(row) for row in rows(split)] for split in ("train", "heldout")}
    assert not set(found["train"]) & set(found["heldout"])
    assert (len(found["train"]), len(found["heldout"])) == (5 * 33, 5 * 9)
    assert len(set(found["train"])) == 5 * 33
    assert all(len(things(group)) == len(set(things(group))) == 42 for group in FORMS)
