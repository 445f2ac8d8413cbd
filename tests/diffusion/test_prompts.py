"""Prompt files: what is read, and one clear error with file and line for what cannot be."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.errors import AlignError
from diffusion.prompts import BUILTIN, PromptSet, read_prompts
from diffusion.tiny import prompts_path


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def rows_of(*rows):
    return "\n".join(json.dumps(row) for row in rows)


# --- what is read ----------------------------------------------------------------------------------------------------


def test_text_file(write):
    """A byte-order mark, Windows line ends, blank lines and white space disappear; repeated prompts stay."""
    found = read_prompts(write("a.txt", "\ufeffa red circle\r\n\r\n  two blue squares \r\na red circle\n\n"))
    assert found == PromptSet(prompts=("a red circle", "two blue squares", "a red circle"))
    assert len(found) == 3


def test_jsonl_file_with_columns(write):
    """Keys that only some rows have are None in the others; values keep their types."""
    text = rows_of({"prompt": " one ", "class": "count", "n": 1}, {"prompt": "two", "extra": {"a": [1]}})
    found = read_prompts(write("a.jsonl", "\ufeff" + text + "\n\n"))
    assert found.prompts == ("one", "two")
    assert found.columns == {"class": ("count", None), "n": (1, None), "extra": (None, {"a": [1]})}


def test_a_caption_may_hold_unusual_line_separators(write):
    """Only newlines separate rows, so U+2028 and a form feed inside a caption stay."""
    assert read_prompts(write("a.txt", "one\u2028still one\ntwo\x0cstill two")).prompts == (
        "one\u2028still one",
        "two\x0cstill two",
    )


def test_ending_is_not_case_sensitive_and_paths_may_be_relative(write, tmp_path):
    write("A.TXT", "one")
    assert read_prompts("A.TXT", tmp_path).prompts == ("one",)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(str.strip), min_size=1))
def test_any_captions_survive_a_round_trip(tmp_path_factory, prompts):
    path = tmp_path_factory.mktemp("prompts") / "a.jsonl"
    path.write_text(rows_of(*({"prompt": p} for p in prompts)), encoding="utf-8")
    assert read_prompts(str(path)).prompts == tuple(p.strip() for p in prompts)


def test_select_repeats_and_reorders():
    found = PromptSet(prompts=("a", "b"), columns={"class": (1, 2)}).select([1, 0, 1])
    assert found == PromptSet(prompts=("b", "a", "b"), columns={"class": (2, 1, 2)})


def test_built_in_names_are_files_of_the_package():
    """Each name leads to its own file; the files of the embedded model are checked with it."""
    assert BUILTIN["builtin:tiny/heldout"] == prompts_path("heldout")
    assert len(set(BUILTIN.values())) == len(BUILTIN)
    for name, path in BUILTIN.items():
        assert read_prompts(name) == read_prompts(str(path))


def test_reading_prompts_does_not_import_torch():
    code = "import sys, diffusion.prompts; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what is not -----------------------------------------------------------------------------------------------------


def error_of(source, **options):
    with pytest.raises(AlignError) as caught:
        read_prompts(source, **options)
    return str(caught.value)


def test_missing_file_names_the_nearest_one(write, tmp_path):
    write("train.jsonl", "{}")
    found = error_of("trian.jsonl", folder=tmp_path)
    assert f"expected a prompt file at {tmp_path / 'trian.jsonl'}, found nothing" in found
    assert f"Did you mean {tmp_path / 'train.jsonl'}?" in found


def test_a_folder_is_no_prompt_file(tmp_path):
    assert "found a folder" in error_of(str(tmp_path))


def test_a_missing_folder_is_no_crash(tmp_path):
    assert "found nothing" in error_of(str(tmp_path / "nowhere" / "a.txt"))


def test_unknown_ending_and_unknown_built_in(write):
    assert "ending in .jsonl or .txt, found '.csv'" in error_of(write("a.csv", "one"))
    assert "builtin:tiny/train, builtin:tiny/heldout" in error_of("builtin:tiny/test")


@pytest.mark.parametrize(("name", "content"), [("a.txt", ""), ("a.txt", "\n \n"), ("a.jsonl", ""), ("a.jsonl", "\n\n")])
def test_an_empty_file_is_an_error(write, name, content):
    assert "has no prompts" in error_of(write(name, content))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"caption": "x"}', "no key 'prompt', found ['caption']"),
        ('{"promt": "x"}', "did you mean 'promt'?"),
        ('{"prompt": null}', "'prompt' must be a text, found null"),
        ('{"prompt": 7}', "'prompt' must be a text, found 7"),
        ('{"prompt": ["x"]}', "'prompt' must be a text, found [\"x\"]"),
        ('{"prompt": ""}', "'prompt' is empty"),
        ('{"prompt": "  "}', "'prompt' is empty"),
        ('"x"', "expected an object"),
        ("[1]", "expected an object"),
        ('{"prompt": "x"', "not valid JSON: Expecting ',' delimiter at column 15"),
        ('{"prompt": "x", "images": 1}', "key 'images' is reserved"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(write, line, problem):
    """The bad row is on line 3: the blank line 2 counts."""
    path = write("a.jsonl", f'{{"prompt": "good"}}\n\n{line}\n{{"prompt": "good"}}\n')
    found = error_of(path)
    assert f"{path}:3: {problem}" in found or (f"{path}:3: " in found and problem in found)
    assert "has 1 row that is not usable" in found


def test_all_bad_rows_are_counted_and_the_first_are_shown(write):
    path = write("a.jsonl", rows_of({"prompt": "good"}, *({"prompt": ""} for _ in range(8))))
    found = error_of(path)
    assert "has 8 rows that are not usable" in found
    assert found.count("'prompt' is empty") == 5
    assert "... and 3 more" in found


def test_bytes_that_are_not_utf8(write):
    assert "expected UTF-8 text" in error_of(write("a.txt", "caf\xe9".encode("latin-1")))
