"""Candidates from a model and from a server, their scores, their pairs: by hand, resumed, and shared by processes."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from align.config.shaping import WeightedSum, ZScore
from align.config.shared import RewardConfig
from align.engine.distributed import Processes
from align.errors import AlignError
from preference.candidates import Answer, write_rows
from preference.commands import export, generate, pairs, score, train
from preference.config import (
    CandidatesConfig,
    CausalLm,
    PairsConfig,
    PreferenceRun,
    ServerConfig,
    TextOptimizerConfig,
    TextTrainingConfig,
    TokensConfig,
)
from preference.config.candidates import AllPairs, BestWorst, Dominating
from preference.data import read_pairs
from preference.generate import write_candidates
from preference.generate_http import read_answer
from preference.make_pairs import make_pairs
from preference.models.quiet import quiet
from preference.score import read_candidates, score_rows
from preference.tables import open_table
from preference.tokenise import tokenise_pairs

from .tokenizers import model_folder, qwen_like

PROMPTS = ["the cat", "a cat in the cat", "ok", "in", "the a"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A miniature that answers with noise."""
    folder = tmp_path_factory.mktemp("model")
    return PreferenceRun(
        model=CausalLm(path=str(model_folder(folder, tokenizer=qwen_like()))),
        data=PairsConfig(plain_as_chat=True, max_length=64, max_prompt_length=48),
        candidates=CandidatesConfig(per_prompt=3, max_new_tokens=6, batch_size=4, temperature=1.0, top_p=1.0),
    )


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": text, "class": f"c{i % 2}"}) + "\n" for i, text in enumerate(PROMPTS))
    )
    return path


def rows_of(path):
    return [dict(row) for row in open_table(str(path)).rows]


def with_candidates(config, **changes):
    return replace(config, candidates=replace(config.candidates, **changes))


# --- a model of this process ------------------------------------------------------------------------------------------


def test_a_file_of_candidates(config, prompts, tmp_path):
    """Rows are whole, and an answer depends neither on the batch nor on what else is asked."""
    path = generate(config, prompts_file=prompts, output=tmp_path / "all.jsonl")
    rows = rows_of(path)
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["prompt"] == [{"role": "user", "content": "the cat"}]
    assert [row["class"] for row in rows] == ["c0", "c1", "c0", "c1", "c0"]
    assert {len(row["candidates"]) for row in rows} == {3}
    assert all(1 <= count <= 6 for row in rows for count in row["tokens"])
    assert {finish for row in rows for finish in row["finish"]} <= {"stop", "length"}
    assert rows[0]["sampling"] == {"max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0}
    assert len({text for row in rows for text in row["candidates"]}) > 3
    assert not (tmp_path / "all.jsonl.parts").exists()
    one = generate(with_candidates(config, batch_size=1), prompts_file=prompts, output=tmp_path / "one.jsonl")
    assert [row["candidates"] for row in rows_of(one)] == [row["candidates"] for row in rows]
    last = generate(config, prompts_file=prompts, seeds=[2], output=tmp_path / "last.jsonl")
    assert [row["candidates"] for row in rows_of(last)] == [row["candidates"][2:] for row in rows]


def test_prompts_of_the_command_line_and_parquet(config, tmp_path):
    rows = rows_of(generate(config, prompts=PROMPTS[:2], output=tmp_path / "few.parquet"))
    again = rows_of(generate(config, prompts=PROMPTS[:2], output=tmp_path / "few.jsonl"))
    assert [row["candidates"] for row in rows] == [row["candidates"] for row in again]


def test_a_mistake_is_told(config, prompts, tmp_path):
    (tmp_path / "there.jsonl").write_text("")
    taken = tmp_path / "taken.jsonl"
    taken.write_text('{"prompt": "a", "scores": 1}\n')
    server = ServerConfig(url="http://localhost:1/v1", model="m")
    cases = [
        (lambda: generate(config, output=tmp_path / "a.jsonl"), "there is no prompt"),
        (lambda: generate(config, prompts=["a"], prompts_file=prompts), "both"),
        (lambda: generate(config, prompts=["a"], seeds=[]), "no seeds"),
        (lambda: generate(with_candidates(config, temperature=0.0), prompts=["a"]), "would be equal"),
        (lambda: generate(config, prompts_file=taken, output=tmp_path / "a.jsonl"), "`scores`"),
        (lambda: generate(config, prompts=["a"], output=tmp_path / "there.jsonl"), "is there already"),
        (lambda: generate(config, prompts=["a"], output=tmp_path / "a.txt"), ".parquet"),
        (lambda: generate(with_candidates(config, server=server), prompts=["a"], checkpoint=tmp_path), "server"),
    ]
    for call, words in cases:
        with pytest.raises(AlignError) as found:
            call()
        assert words in str(found.value)


# --- parts: stopped, resumed, shared ----------------------------------------------------------------------------------


class Counting:
    """Answers with the prompt's number and the candidate's; stops after so many answers."""

    at_once = 2

    def __init__(self, texts, limit=None, model="m"):
        self.texts, self.limit, self.model, self.asked = texts, limit, model, []

    def identity(self):
        return {"model": self.model, "sampling": {}}

    def usable(self):
        return range(len(self.texts))

    def answers(self, wanted):
        if self.limit is not None and len(self.asked) >= self.limit:
            raise RuntimeError("killed")
        self.asked += wanted
        return [Answer(text=f"{place}-{number}", finish="stop", tokens=1) for place, number in wanted]


class Thread(Processes):
    """One of two processes, played by threads: what the first has to say goes through a box."""

    barrier_of_both, box = threading.Barrier(2, timeout=20), []

    def __init__(self, rank):
        super().__init__()
        self.rank, self.world = rank, 2

    def barrier(self):
        self.barrier_of_both.wait()

    def from_main(self, value):
        if self.is_main:
            self.box[:] = [value]
        self.barrier()
        found = self.box[0]
        self.barrier()
        return found


def texts_of(prompts):
    from preference.data import read_prompts

    return read_prompts(str(prompts))


def test_a_stopped_file_goes_on(prompts, tmp_path):
    output, texts = tmp_path / "out.jsonl", texts_of(prompts)
    with pytest.raises(RuntimeError, match="killed"):
        write_candidates(texts, Counting(texts, 4), (0, 1), seed=0, output=output, processes=Processes())
    (part,) = (tmp_path / "out.jsonl.parts").glob("*.jsonl")
    part.write_text(part.read_text() + '{"row": 4, "candi')  # killed while it wrote
    rest = Counting(texts)
    write_candidates(texts, rest, (0, 1), seed=0, output=output, processes=Processes())
    assert rest.asked == [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]
    assert [row["candidates"] for row in rows_of(output)] == [[f"{i}-0", f"{i}-1"] for i in range(5)]


def test_parts_of_other_settings_are_refused(prompts, tmp_path):
    output, texts = tmp_path / "out.jsonl", texts_of(prompts)
    with pytest.raises(RuntimeError):
        write_candidates(texts, Counting(texts, 2), (0, 1), seed=0, output=output, processes=Processes())
    for source, numbers, seed, word in (
        (Counting(texts, model="other"), (0, 1), 0, "model"),
        (Counting(texts), (0, 1, 2), 0, "candidates"),
        (Counting(texts), (0, 1), 1, "seed"),
    ):
        with pytest.raises(AlignError, match=f"another {word}"):
            write_candidates(texts, source, numbers, seed=seed, output=output, processes=Processes())


def test_two_processes_share_the_prompts(prompts, tmp_path):
    """Five rows, one of them done before by one process alone: of the other four each process answers two."""
    output, texts = tmp_path / "out.jsonl", texts_of(prompts)
    with pytest.raises(RuntimeError, match="killed"):
        write_candidates(texts, Counting(texts, 2), (0, 1), seed=0, output=output, processes=Processes())
    sources = [Counting(texts), Counting(texts)]

    def work(rank):
        write_candidates(texts, sources[rank], (0, 1), seed=0, output=output, processes=Thread(rank))

    with ThreadPoolExecutor(2) as workers:
        for future in [workers.submit(work, rank) for rank in (0, 1)]:
            future.result()
    assert [source.asked for source in sources] == [
        [(1, 0), (1, 1), (2, 0), (2, 1)],
        [(3, 0), (3, 1), (4, 0), (4, 1)],
    ]
    assert [row["candidates"] for row in rows_of(output)] == [[f"{i}-0", f"{i}-1"] for i in range(5)]


# --- a server ---------------------------------------------------------------------------------------------------------


@contextmanager
def server(answer):
    """A local server; `answer(path, request, number)` gives status and body. Yields its address and what it heard."""
    heard, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                heard.append(SimpleNamespace(path=self.path, body=body, token=self.headers.get("Authorization")))
                number = len(heard)
            status, reply = answer(self.path, body, number)
            content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/v1", heard
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def chat(path, body, number):
    text = f"to {body['messages'][-1]['content']} by {body['seed'] % 1000}"
    return 200, {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 7},
    }


def asking(config, url, **changes):
    settings = ServerConfig(url=url, model="served", backoff=0.0, in_flight=2, **changes)
    return with_candidates(config, server=settings, per_prompt=2)


def test_a_chat_server(config, prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_TEST_TOKEN", "a-secret")
    with server(chat) as (url, heard):
        changes = {"token_env": "ALIGN_TEST_TOKEN", "parameters": {"stop": ["\n"]}}
        path = generate(asking(config, url, **changes), prompts_file=prompts, output=tmp_path / "a.jsonl")
        again = generate(asking(config, url), prompts_file=prompts, output=tmp_path / "b.jsonl")
    rows = rows_of(path)
    assert rows[0]["candidates"][0].startswith("to the cat by ")
    assert rows[0]["candidates"][0] != rows[0]["candidates"][1]
    assert [row["candidates"] for row in rows_of(again)] == [row["candidates"] for row in rows]
    assert (rows[0]["tokens"], rows[0]["finish"], rows[0]["model"]) == ([7, 7], ["stop", "stop"], "served")
    assert {entry.path for entry in heard} == {"/v1/chat/completions"}
    assert {entry.token for entry in heard} == {"Bearer a-secret", None}
    assert heard[0].body["max_tokens"] == 6
    assert heard[0].body["stop"] == ["\n"]
    assert len({entry.body["seed"] for entry in heard}) == 10
    assert "a-secret" not in path.read_text()


def test_a_completions_server_that_stumbles(config, tmp_path):
    """The first two requests meet a server that is busy; they are tried again."""

    def answer(path, body, number):
        if number <= 2:
            return 503, {}
        return 200, {"choices": [{"text": " yes", "finish_reason": "length"}]}

    plain = replace(asking(config, "http://x", api="completions"), data=PairsConfig())
    with server(answer) as (url, heard):
        settings = replace(plain.candidates, server=replace(plain.candidates.server, url=url))
        path = generate(replace(plain, candidates=settings), prompts=["the sky is"], output=tmp_path / "a.jsonl")
    (row,) = rows_of(path)
    assert row["prompt"] == "the sky is"
    assert row["candidates"] == [" yes", " yes"]
    assert (row["finish"], row["tokens"]) == (["length", "length"], [None, None])
    assert len(heard) == 4
    assert heard[0].path == "/v1/completions"
    with pytest.raises(AlignError, match="conversation"):
        generate(asking(config, url, api="completions"), prompts=["a"], output=tmp_path / "b.jsonl")


def test_a_server_that_refuses_ends_the_command_and_keeps_what_is_done(config, prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_TEST_TOKEN", "a-secret")
    refuse = threading.Event()
    seen = Counter()

    def answer(path, body, number):
        seen["asked"] += 1
        if refuse.is_set():
            return 401, {"error": "no key a-secret"}
        return chat(path, body, number)

    with server(answer) as (url, _):
        refuse.set()
        with pytest.raises(AlignError) as found:
            generate(
                asking(config, url, token_env="ALIGN_TEST_TOKEN"), prompts_file=prompts, output=tmp_path / "a.jsonl"
            )
        assert "status 401" in str(found.value)
        assert "a-secret" not in str(found.value)
        assert (tmp_path / "a.jsonl.parts").is_dir()
        refuse.clear()
        generate(asking(config, url, token_env="ALIGN_TEST_TOKEN"), prompts_file=prompts, output=tmp_path / "a.jsonl")
    assert len(rows_of(tmp_path / "a.jsonl")) == 5


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}']
)
def test_an_answer_that_is_none(body):
    with pytest.raises(ValueError, match=r"^answered with"):
        read_answer(body)


# --- scores -----------------------------------------------------------------------------------------------------------


ROWS = [
    {"row": 0, "prompt": "p", "tag": "x", "candidates": ["a b c", "a", "?"], "finish": ["stop", "length", "stop"]},
    {"row": 1, "prompt": [{"role": "user", "content": "q"}], "tag": "y", "candidates": ["b", "c", "b", " "]},
]


@pytest.fixture
def reward(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def words(*, completions, prompts, tag, **columns):\n"
        "    assert len(tag) == len(prompts) == len(completions)\n"
        "    return [None if text == '?' else float(len(text.split())) for text in completions]\n"
        "def length(*, completions):\n"
        "    return [float(len(text)) for text in completions]\n"
        "def a(*, completions):\n"
        "    return [float(text.count('a')) for text in completions]\n"
    )
    return path


def test_scores_by_hand(reward, tmp_path, capsys):
    """2 words - a: 6 - 1, 2 - 1; `?` has no words, and what is required makes it unscored."""
    path = write_rows(tmp_path / "candidates.jsonl", ROWS)
    chosen = [
        RewardConfig(function=f"{reward}:words", weight=2.0),
        RewardConfig(function=f"{reward}:a", weight=-1.0),
    ]
    config = PreferenceRun(
        candidates=CandidatesConfig(
            rewards=tuple(chosen), combine=WeightedSum(allow_negative=True), required=("words",)
        )
    )
    found = score(path, config=config)
    assert found.rows[0]["rewards"] == {"words": [3.0, 1.0, None], "a": [1.0, 1.0, 0.0]}
    assert found.rows[0]["scores"] == [5.0, 1.0, None]
    assert found.rows[1]["scores"] == [2.0, 2.0, 2.0, 0.0]
    assert found.rows[0]["weights"] == {"words": 2.0, "a": -1.0}
    assert rows_of(tmp_path / "candidates.scored.jsonl") == [dict(row) for row in found.rows]
    assert "words, 1 answers: returned None" in capsys.readouterr().out
    with pytest.raises(AlignError, match="no reward"):
        score(path)
    with pytest.raises(AlignError, match=r"\.parquet"):
        score(path, config=config, output=tmp_path / "scores.csv")
    with pytest.raises(AlignError, match="needs 'tag'"):
        score_rows([{"prompt": "p", "candidates": ["a"]}], chosen, CandidatesConfig())


def test_transforms_are_those_of_training(reward):
    """Words 3 and 1 of one prompt: z-scores with a population deviation of 1 are +1 and -1."""
    settings = CandidatesConfig(transforms=(ZScore(unbiased=False, eps=0.0),))
    found = score_rows(
        [{**ROWS[0], "candidates": ["a b c", "a"]}], [RewardConfig(function=f"{reward}:words")], settings
    )
    assert found.rows[0]["scores"] == pytest.approx([1.0, -1.0])
    assert found.rows[0]["rewards"]["words"] == [3.0, 1.0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not valid JSON"),
        ('{"prompt": "a"}', "`candidates`"),
        ('{"prompt": "a", "candidates": ["a", 1]}', "`candidates`"),
        ('{"candidates": ["a"]}', "`prompt`"),
    ],
)
def test_rows_that_are_no_candidates(tmp_path, line, said):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a", "candidates": ["b"]}\n' + line + "\n")
    with pytest.raises(AlignError) as found:
        read_candidates(path)
    assert said in str(found.value)
    assert "bad.jsonl:2" in str(found.value)


# --- pairs ------------------------------------------------------------------------------------------------------------

SCORED = [
    {
        "prompt": "p",
        "class": "one",
        "candidates": ["bad", "good", "fair", "bad"],
        "finish": ["stop", "length", "stop", "stop"],
        "rewards": {"kind": [0.0, 2.0, 1.0, 9.0], "short": [1.0, 0.0, 1.0, 9.0]},
        "scores": [0.0, 3.0, 1.0, 9.0],
        "weights": {"kind": 1.0, "short": -1.0},
    },
    {
        "prompt": [{"role": "user", "content": "q"}],
        "class": "two",
        "candidates": ["x", "y", "", "z"],
        "rewards": {"kind": [1.0, 1.0, 5.0, None], "short": [1.0, 1.0, 5.0, None]},
        "scores": [1.0, 1.0, 5.0, None],
        "weights": {"kind": 1.0, "short": -1.0},
    },
]


def test_best_and_worst_by_hand():
    """The second `bad` is the first one again; of the second prompt two equal scores are left: no pair."""
    made = make_pairs(SCORED, CandidatesConfig())
    assert made.rows == [
        {
            "prompt": "p",
            "chosen": "good",
            "rejected": "bad",
            "score_chosen": 3.0,
            "score_rejected": 0.0,
            "margin": 3.0,
            "kind_chosen": 2.0,
            "kind_rejected": 0.0,
            "short_chosen": 0.0,
            "short_rejected": 1.0,
            "class": "one",
        }
    ]
    assert made.answers_left_out == {
        "the same text as another answer to the prompt": 1,
        "empty": 1,
        "without a score": 1,
    }
    assert made.prompts_left_out == {"all scores equal": 1}
    assert made.summary()[0] == "1 pairs from 1 of 2 prompts"


def test_other_ways_to_choose():
    """All: 3 > 1, 3 > 0, 1 > 0, of which two have a margin of 2. Dominating (kind up, short down): good over both;
    fair over bad, kinder and as short. Without the cut answer only fair and bad are left."""
    sides = lambda settings: [(row["chosen"], row["rejected"]) for row in make_pairs(SCORED, settings).rows]  # noqa: E731
    everything = {("good", "bad"), ("good", "fair"), ("fair", "bad")}
    assert set(sides(CandidatesConfig(pairs=AllPairs()))) == everything
    assert set(sides(CandidatesConfig(pairs=AllPairs(min_margin=2.0)))) == {("good", "bad"), ("good", "fair")}
    assert set(sides(CandidatesConfig(pairs=Dominating()))) == everything
    assert sides(CandidatesConfig(finished_only=True)) == [("fair", "bad")]
    strict = make_pairs(SCORED, CandidatesConfig(pairs=BestWorst(min_margin=4.0)))
    assert strict.prompts_left_out == {"margin too small": 1, "all scores equal": 1}
    none = make_pairs(SCORED[1:], CandidatesConfig(pairs=Dominating()))
    assert none.prompts_left_out == {"no answer is better without being worse somewhere": 1}


def test_pairs_are_read_by_training_as_they_are(tmp_path, capsys):
    """Conversations and plain texts in one file; the columns go on to tables."""
    scored = [SCORED[0], {**SCORED[1], "scores": [1.0, 0.5, 5.0, None]}]
    path = write_rows(tmp_path / "scored.jsonl", scored)
    pairs(path)
    texts = read_pairs(str(tmp_path / "pairs.jsonl"), PairsConfig())
    tokens = tokenise_pairs(texts, qwen_like(), TokensConfig())
    assert tokens.chosen == ["good", "x"]
    assert tokens.rejected == ["bad", "y"]
    assert tokens.columns["kind_chosen"] == [2.0, 1.0]
    assert "1 answers left out: empty" in capsys.readouterr().out
    write_rows(path, SCORED[1:])
    with pytest.raises(AlignError, match="no pair"):
        pairs(path, output=tmp_path / "none.jsonl")
    write_rows(path, [{"prompt": "p", "candidates": ["a", "b"], "scores": [1.0], "rewards": {}}])
    with pytest.raises(AlignError, match="one score"):
        pairs(path)


# --- export -----------------------------------------------------------------------------------------------------------


def test_a_base_model_is_exported_as_a_stock_folder(config, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = export(config, source=tmp_path / "run.yaml", output=tmp_path / "out", dtype="bfloat16")
    stock = AutoModelForCausalLM.from_pretrained(folder)
    before = AutoModelForCausalLM.from_pretrained(config.model.path)
    assert stock.dtype == torch.bfloat16
    for ours, theirs in zip(stock.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs.to(torch.bfloat16))
    assert AutoTokenizer.from_pretrained(folder).chat_template == qwen_like().chat_template
    for changes, said in (
        ({"output": tmp_path / "out"}, "not an empty folder"),
        ({"output": tmp_path / "new", "format": "gguf"}, "no export format"),
        ({"output": tmp_path / "new", "format": "adapter"}, "no adapter"),
        ({"output": tmp_path / "new", "dtype": "int8"}, "no export dtype"),
    ):
        with pytest.raises(AlignError, match=said):
            export(config, source=tmp_path / "run.yaml", **changes)


def test_the_whole_way(config, prompts, reward, tmp_path, monkeypatch):
    """Candidates, scores, pairs, training, and then candidates and a merged folder of the trained weights."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(tmp_path)
    found = generate(config, prompts_file=prompts)
    score(found, rewards=[RewardConfig(function=f"{reward}:length")], output=tmp_path / "scored.jsonl")
    pairs(tmp_path / "scored.jsonl")
    run = replace(
        config,
        data=replace(config.data, train=str(tmp_path / "pairs.jsonl"), heldout=None, pairs_per_step=2),
        training=TextTrainingConfig(steps=2, micro_batch_size=2),
        optimizer=TextOptimizerConfig(learning_rate=0.05),
    )
    folder = train(run, name="whole")
    merged = export(run, source=folder, output=tmp_path / "merged")
    adapter = export(run, source=folder, output=tmp_path / "adapter", format="adapter")
    base = AutoModelForCausalLM.from_pretrained(config.model.path)
    ids = torch.arange(12)[None]
    with torch.no_grad(), quiet():
        before = base(ids).logits
        after = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
        by_adapter = PeftModel.from_pretrained(base, str(adapter))(ids).logits
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(after, by_adapter, atol=1e-4)
    trained = rows_of(generate(run, checkpoint=folder, prompts_file=prompts, output=tmp_path / "after.jsonl"))
    stock = replace(config, model=CausalLm(path=str(merged)))
    again = rows_of(generate(stock, prompts_file=prompts, output=tmp_path / "again.jsonl"))
    assert [row["candidates"] for row in trained] == [row["candidates"] for row in again]
    assert "step_000002" in trained[0]["model"]
