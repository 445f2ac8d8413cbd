"""Rows of every format, files of every kind, and what is said of rows that cannot be used."""

import csv
import json
import math

import pytest

from align.errors import AlignError
from preference.config import DpoConfig, PairsConfig, PreferenceRun, SftConfig
from preference.data import read_pairs, read_prompts, read_responses
from preference.formats import Unusable, as_chat, normalise, readable
from preference.sources import are_pairs, heldout_texts, training_texts
from preference.tables import open_table

SIDES = ("chosen", "rejected")


def turn(role, content):
    return {"role": role, "content": content}


def row_of(prompt, chosen, rejected, **more):
    return normalise(prompt, [chosen, rejected], SIDES, more)


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


PLAIN = {"prompt": "p", "chosen": " a", "rejected": " b"}


# --- formats ----------------------------------------------------------------------------------------------------------


def test_plain_texts():
    row = row_of("p", " a", " b")
    assert (row.prompt, row.responses, row.is_chat) == ("p", (" a", " b"), False)


def test_conversations_with_a_prompt():
    row = row_of([turn("system", "s"), turn("user", "u")], [turn("assistant", "a")], [turn("assistant", "b")])
    assert row.prompt == (turn("system", "s"), turn("user", "u"))
    assert row.responses == ((turn("assistant", "a"),), (turn("assistant", "b"),))
    assert row.is_chat


def test_conversations_whose_shared_turns_are_the_prompt():
    """Also where the first turns of the assistant are shared, and where answers begin with the same words."""
    shared = [turn("user", "u"), turn("assistant", "x"), turn("user", "v")]
    row = row_of(None, [*shared, turn("assistant", "the cat")], [*shared, turn("assistant", "the hat")])
    assert row.prompt == tuple(shared)
    assert [answer[0]["content"] for answer in row.responses] == ["the cat", "the hat"]


def test_a_text_beside_whole_conversations():
    """UltraFeedback-binarized: the column `prompt` repeats what the conversations hold."""
    conversations = [[turn("user", "u"), turn("assistant", name)] for name in "ab"]
    assert row_of("u", *conversations) == row_of(None, *conversations)


def test_a_text_before_turns_of_the_assistant():
    assert row_of("u", [turn("assistant", "a")], [turn("assistant", "b")]).prompt == (turn("user", "u"),)


def test_messages_before_texts():
    row = row_of([turn("user", "u")], "a", "b")
    assert row.responses == ((turn("assistant", "a"),), (turn("assistant", "b"),))


def test_the_prompt_is_not_repeated_in_the_answers():
    prompt = [turn("user", "u")]
    row = row_of(prompt, [*prompt, turn("assistant", "a")], [*prompt, turn("assistant", "b")])
    assert row.responses == ((turn("assistant", "a"),), (turn("assistant", "b"),))


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "answers"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is", (" blue.", " green.")),
        ("a blue", "a blur", "a", (" blue", " blur")),  # words, where letters would be `a blu`
        ("a\n\nb c", "a\n\nb  d", "a\n\nb", (" c", "  d")),
        ("a b", "a b c", "a b", None),  # nothing is left of the first
        ("a b", "c b", None, None),
    ],
)
def test_shared_words_are_a_prompt_where_asked_for(tmp_path, chosen, rejected, prompt, answers):
    path = write(tmp_path / "pairs.jsonl", [{"chosen": chosen, "rejected": rejected}])
    settings = PairsConfig(train=path, heldout=None, shared_words=True)
    if answers is None:
        with pytest.raises(AlignError, match="`chosen` is empty" if prompt else "begin with the same word"):
            read_pairs(path, settings)
        return
    (row,) = read_pairs(path, settings).rows
    assert (row.prompt, row.responses) == (prompt, answers)
    with pytest.raises(AlignError, match="shared_words"):
        read_pairs(path, PairsConfig(train=path, heldout=None))


def test_shared_words_leave_conversations_and_transcripts_alone(tmp_path):
    conversation = {
        "chosen": [turn("user", "u"), turn("assistant", "a b")],
        "rejected": [turn("user", "u"), turn("assistant", "a c")],
    }
    transcript = {"chosen": "\n\nHuman: u\n\nAssistant: a b", "rejected": "\n\nHuman: u\n\nAssistant: a c"}
    path = write(tmp_path / "pairs.jsonl", [conversation, transcript, PLAIN])
    with_words = read_pairs(path, PairsConfig(train=path, heldout=None, shared_words=True))
    assert with_words.rows == read_pairs(path, PairsConfig(train=path, heldout=None)).rows


def test_transcripts():
    """HH-RLHF: the shared turns stay text, up to the word that announces the answer."""
    start = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: the"
    row = row_of(None, f"{start}\n\nAssistant: the cat", f"{start}\n\nAssistant: the hat")
    assert row.prompt == f"{start}\n\nAssistant:"
    assert row.responses == (" the cat", " the hat")


def test_keys_that_arrow_fills_and_other_spellings():
    messages = [
        {"from": "human", "value": "u", "role": None},
        {"role": "assistant", "content": "a", "tool_calls": None},
    ]
    other = [*messages[:1], turn("assistant", [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}])]
    row = row_of(None, messages, other)
    assert row.prompt == (turn("user", "u"),)
    assert row.responses == ((turn("assistant", "a"),), (turn("assistant", "bc"),))


def test_tools_and_template_options():
    more = {"tools": '[{"name": "clock"}]', "chat_template_kwargs": {"enable_thinking": False, "other": None}}
    call = [{"role": "assistant", "tool_calls": [{"name": "clock"}]}]
    row = row_of([turn("user", "u")], call, [turn("assistant", "b")], **more)
    assert row.tools == ({"name": "clock"},)
    assert row.template_options == {"enable_thinking": False}
    assert readable(row.responses[0]) == '[{"name": "clock"}]'


def test_plain_texts_as_turns():
    row = as_chat(row_of("p", "a", "b"))
    assert row.prompt == (turn("user", "p"),)
    assert row.responses[1] == (turn("assistant", "b"),)
    assert as_chat(row) is row


def test_readable():
    assert readable((turn("system", "s"), turn("user", "u"))) == "u"
    assert readable((turn("user", "u"), turn("assistant", "a"))) == "user: u\n\nassistant: a"


U, A = turn("user", "u"), turn("assistant", "a")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "more", "message"),
    [
        ("p", "", "b", {}, "`chosen` is empty"),
        ("p", "a", "  \n", {}, "`rejected` is empty"),
        ("p", "a", "a", {}, "`chosen` and `rejected` are equal"),
        ("p", 3, "a", {}, "`chosen` must be a text or a list of messages, found 3"),
        ({"a": 1}, "a", "b", {}, "`prompt` must be a text or a list of messages"),
        ("p", [], "b", {}, "`chosen` must be a text or a list of messages, found []"),
        ("p", "a", [A], {}, "one of `chosen` and `rejected` is a text, the other a conversation"),
        (None, "a b", "a c", {}, "there is no prompt"),
        (
            None,
            [U, A],
            [turn("user", "v"), A],
            {},
            "`chosen` goes on with a turn of 'user' where the conversations part",
        ),
        (None, [A], [turn("assistant", "b")], {}, "there is no prompt: the conversations share no turn"),
        (None, [U, A], [U, A, U, A], {}, "`chosen` is empty behind the turns that both share"),
        ([U], [U], [U, A], {}, "`chosen` is empty behind the prompt"),
        ([U], [turn("user", "x"), A], [A], {}, "does not begin with the turns of `prompt`"),
        ([U], [turn("assistant", " ")], [A], {}, "`chosen` is empty"),
        ([turn("user", 3)], [A], [A], {}, "`prompt[0].content` must be a text, found 3"),
        ([turn(None, "x")], [A], [A], {}, "`prompt[0].role` must be a text"),
        (["x"], [A], [A], {}, "`prompt[0]` must be a message"),
        ([turn("user", [{"type": "image"}])], [A], [A], {}, "holds a part that is no text (a picture?)"),
        ("p", "a", "b", {"tools": "{"}, "`tools` is no valid JSON"),
        ("p", "a", "b", {"tools": "[3]"}, "`tools` must be a list of function descriptions"),
        ("p", "a", "b", {"chat_template_kwargs": 3}, "`chat_template_kwargs` must be an object"),
    ],
)
def test_rows_that_cannot_be_used(prompt, chosen, rejected, more, message):
    with pytest.raises(Unusable) as caught:
        row_of(prompt, chosen, rejected, **more)
    assert message in str(caught.value)


# --- files ------------------------------------------------------------------------------------------------------------


def save_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def save_arrow(path, rows):
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(path))


def save_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


SAVERS = {
    "a.jsonl": lambda path, rows: write(path, rows),
    "a.json": lambda path, rows: path.write_text(json.dumps({"version": 1, "data": rows})),
    "a.csv": save_csv,
    "a.parquet": save_parquet,
    "a": save_arrow,
}


@pytest.mark.parametrize("name", list(SAVERS))
def test_every_kind_of_file(tmp_path, name):
    rows = [PLAIN, {**PLAIN, "prompt": 'line\u2028one\n"two"'}]
    SAVERS[name](tmp_path / name, rows)
    found = read_pairs(str(tmp_path / name), PairsConfig())
    assert [row.prompt for row in found.rows] == [row["prompt"] for row in rows]
    assert found.report.summary() == "2 of 2 rows"


@pytest.mark.parametrize("name", ["a.parquet", "a"])
def test_messages_in_columnar_files(tmp_path, name):
    rows = [{"prompt": [U], "chosen": [A], "rejected": [{**turn("assistant", "b"), "name": "x"}]}]
    SAVERS[name](tmp_path / name, rows)
    (row,) = read_pairs(str(tmp_path / name), PairsConfig()).rows
    assert row.responses == ((A,), ({**turn("assistant", "b"), "name": "x"},))


def test_splits(tmp_path):
    import datasets

    splits = {name: datasets.Dataset.from_list([{**PLAIN, "prompt": name}]) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path))
    settings = PairsConfig(train=str(tmp_path), heldout=str(tmp_path))
    config = PreferenceRun(data=settings)
    assert training_texts(config).prompts == ["train"]
    assert heldout_texts(config).prompts == ["test"]
    assert heldout_texts(PreferenceRun(data=PairsConfig(heldout=None))) is None
    with pytest.raises(AlignError, match=r"has no split 'trian'. Did you mean `train`\?"):
        read_pairs(str(tmp_path), settings, split="trian")


def test_bad_rows_stop_or_are_counted(tmp_path):
    bad = [
        {**PLAIN, "chosen": ""},
        "{broken",
        "[1]",
        {**PLAIN, "score_chosen": math.nan},
        {"prompt": "p", "chosen": "a"},
    ]
    path = write(tmp_path / "a.jsonl", [PLAIN, *bad, "", {**PLAIN, "topic": 7}])
    with pytest.raises(AlignError) as caught:
        read_pairs(path, PairsConfig())
    assert caught.value.message.split("\n") == [
        f"{path} has 5 rows that cannot be used:",
        f"{path}:2: `chosen` is empty",
        f"{path}:3: not valid JSON: Expecting property name enclosed in double quotes at column 2",
        f"{path}:4: expected an object, found [1]",
        f"{path}:5: `score_chosen` is nan",
        f"{path}:6: `rejected` is missing",
    ]
    assert "data.bad_rows: skip" in caught.value.way_out
    found = read_pairs(path, PairsConfig(bad_rows="skip"))
    assert found.report.summary() == "2 of 7 rows, 5 left out: not usable"
    assert found.numbers == (0, 6)
    assert found.places[1] == f"{path}:8"
    assert found.columns["topic"] == (None, 7)


def test_many_bad_rows_are_counted_not_listed(tmp_path):
    path = write(tmp_path / "a.jsonl", [{**PLAIN, "chosen": ""}] * 9)
    with pytest.raises(AlignError, match=r"and 4 more"):
        read_pairs(path, PairsConfig())
    with pytest.raises(AlignError, match=r"no row that can be used \(9 cannot be used, such as .*:1: `chosen`"):
        read_pairs(path, PairsConfig(bad_rows="skip"))


def test_columns_of_other_names(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "p", "good": "a", "bad": "b", "extra": 1}])
    with pytest.raises(AlignError, match=r"has no column `chosen`") as caught:
        read_pairs(path, PairsConfig())
    assert "question, good, bad, extra" in caught.value.way_out
    found = read_pairs(path, PairsConfig(prompt="question", chosen="good", rejected="bad"))
    assert found.rows[0].responses == ("a", "b")
    assert found.columns == {"extra": (1,)}


def test_a_column_that_rewards_receive_already(tmp_path):
    path = write(tmp_path / "a.jsonl", [{**PLAIN, "completions": 1}])
    with pytest.raises(AlignError, match=r"column `completions` has a name that rewards receive already"):
        read_pairs(path, PairsConfig())


def test_a_changed_file_is_read_again(tmp_path):
    import os

    path = write(tmp_path / "a.jsonl", [PLAIN])
    assert len(read_pairs(path, PairsConfig())) == 1
    write(tmp_path / "a.jsonl", [PLAIN, PLAIN])
    os.utime(path, ns=(1, 1))
    assert len(read_pairs(path, PairsConfig())) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "expected a file ending in .jsonl, .json, .csv, .parquet, found .txt"),
        ("a.json", "[1,\n}", ":2: not valid JSON"),
        ("a.json", "3", "expected a list of objects, found '3'"),
        ("a.parquet", "x", "cannot be read"),
        ("a.jsonl", "", "it is empty"),
        ("a.csv", "prompt,chosen,rejected\np,a\n", ":2: expected as many cells as there are columns"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(AlignError) as caught:
        read_pairs(str(tmp_path / name), PairsConfig())
    assert message in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(AlignError, match=r"found nothing"):
        open_table(str(tmp_path / "none.jsonl"))
    with pytest.raises(AlignError, match=r"built-in set of pairs, found 'builtin:tiny/trian'. Did you mean"):
        open_table("builtin:tiny/trian")


# --- answers and prompts alone ----------------------------------------------------------------------------------------


def test_single_answers(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "a"}])
    assert read_responses(path).rows[0].responses == ("a",)
    path = write(tmp_path / "b.jsonl", [{"messages": [U, A, U, A]}])
    (row,) = read_responses(path).rows
    assert (row.prompt, row.responses) == ((U, A, U), ((A,),))
    path = write(tmp_path / "c.jsonl", [{"text": "a"}])
    assert read_responses(path).rows[0].prompt == ""
    with pytest.raises(AlignError, match=r"expected the columns `prompt` and `completion`, or `messages`.*; found x"):
        read_responses(write(tmp_path / "d.jsonl", [{"x": 1}]))


def test_single_answers_of_pairs_are_the_chosen_ones(tmp_path):
    path = write(tmp_path / "a.jsonl", [PLAIN])
    assert read_responses(path).rows[0].responses == (PLAIN["chosen"],)
    path = write(tmp_path / "b.jsonl", [{"chosen": [U, A], "rejected": [U, turn("assistant", "b")]}])
    (row,) = read_responses(path).rows
    assert (row.prompt, row.responses) == ((U,), ((A,),))


def test_held_out_rows_of_supervised_runs_are_pairs_where_there_are_pairs(tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [PLAIN])
    single = write(tmp_path / "single.jsonl", [{"prompt": "p", "completion": "a"}])

    def heldout(path, algorithm):
        return heldout_texts(PreferenceRun(algorithm=algorithm, data=PairsConfig(heldout=path)))

    assert are_pairs(heldout(pairs, SftConfig()))
    assert not are_pairs(heldout(single, SftConfig()))
    with pytest.raises(AlignError, match="no column `chosen`"):
        heldout(single, DpoConfig())


def test_prompts(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    assert read_prompts(str(tmp_path / "a.txt"), as_turns=True).rows[1].prompt == (turn("user", "two"),)
    path = write(tmp_path / "a.jsonl", [{"prompt": [U], "topic": 1}, {"prompt": "p", "topic": 2}])
    found = read_prompts(path)
    assert (found.prompts, found.columns) == (["u", "p"], {"topic": (1, 2)})
    path = write(tmp_path / "b.jsonl", [{"chosen": [U, A], "rejected": [U, turn("assistant", "b")]}])
    assert read_prompts(path).prompts == ["u"]
    with pytest.raises(AlignError, match=r"b.jsonl:1: `prompt` is empty"):
        read_prompts(write(tmp_path / "b.jsonl", [{"prompt": " "}]))
    with pytest.raises(AlignError, match=r"has no column `prompt`"):
        read_prompts(write(tmp_path / "c.jsonl", [{"x": "p"}]))


# --- the page ---------------------------------------------------------------------------------------------------------


def test_examples_of_the_page(tmp_path):
    """Every example of docs/preference_data.md is read, and every setting that it names exists."""
    import re
    from dataclasses import fields
    from pathlib import Path

    from preference.ratings import read_ratings

    page = (Path(__file__).parents[2] / "docs" / "preference_data.md").read_text(encoding="utf-8")
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    pairs = [row for row in examples if "chosen" in row]
    assert (len(pairs), len(examples)) == (5, 7)
    assert len(read_pairs(write(tmp_path / "pairs.jsonl", pairs), PairsConfig())) == 5
    for row in (row for row in examples if row not in pairs):
        assert len(read_ratings(write(tmp_path / "ratings.jsonl", [row]))) == 1
    named = set(re.findall(r"`data\.(\w+)", page))
    assert named <= {field.name for field in fields(PairsConfig)}
