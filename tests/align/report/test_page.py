"""The page: self-contained, escaped, and there for every state of a run."""

import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from align.report.build import write_report, write_strip

VOID = {"meta", "img", "br", "link", "hr", "input", "path", "use", "rect"}


class Reader(HTMLParser):
    """Collects tags, addresses, ids and texts; checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.addresses, self.ids, self.texts = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def text_of(path):
    return " ".join(" ".join(read(path).texts).replace("\u00a0", " ").split())


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 12},
        {"steps": 1},
        {"steps": 1, "evaluations": False, "pictures": False},
        {"steps": 500, "evaluations": False},
        {"steps": 4, "pictures": False},
    ],
)
def test_every_run_has_a_page_that_needs_nothing_else(make_run, options):
    folder = make_run(**options)
    page = write_report(folder)
    assert page == folder / "report.html"
    reader = read(page)
    assert not {"script", "iframe", "link", "object"} & set(reader.tags)
    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert len(set(reader.ids)) == len(reader.ids)
    assert {address[1:] for address in reader.addresses if address.startswith("#")} <= set(reader.ids)
    assert "url(http" not in page.read_text(encoding="utf-8")
    assert page.stat().st_size < 2_000_000
    assert not list(folder.glob("*.part"))


def test_the_page_shows_what_a_colleague_asks_for(make_run):
    text = text_of(write_report(make_run(steps=12)))
    for wanted in (
        "AWM trained builtin:tiny on the reward shapes for 12 steps",
        "95 % interval",
        "a red circle left of a blue square",
        "Held-out rewards",
        "Groups without a difference",
        "rollout.group_size",
        "Best",
        "Worst",
        "advantage",
        "everything else",
        "shapes_strict",
    ):
        assert wanted in text


def test_large_pictures_keep_the_page_small(make_run):
    page = write_report(make_run(steps=6, side=512))
    assert page.stat().st_size < 2_000_000


def test_prompts_are_escaped(make_run):
    prompt = '<script>alert("x")</script> & <b>bold</b>'
    page = write_report(make_run(steps=2, prompt=prompt))
    assert "script" not in read(page).tags
    assert 'alert("x")' in text_of(page)
    assert "<b>bold" not in page.read_text(encoding="utf-8")


def test_a_long_prompt_is_shortened_and_kept_whole_as_a_tooltip(make_run):
    prompt = "a very long prompt " * 60
    source = write_report(make_run(steps=2, prompt=prompt)).read_text(encoding="utf-8")
    assert re.search(r'<div class="prompt" title="(a very long prompt ){60}', source)
    assert "…" in source


def test_metrics_that_are_not_finite_are_a_problem_and_no_curve(make_run):
    folder = make_run(steps=3)
    _, *rows = [json.loads(line) | {"kl": None} for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    text = text_of(write_report(folder))
    assert "kl was not a finite number in 3 steps." in text
    assert "Distance to the base model" not in text


def test_a_run_that_has_only_a_config_has_a_page(tmp_path):
    (tmp_path / "config.yaml").write_text("branch: diffusion\n")
    assert "No step has finished yet." in text_of(write_report(tmp_path))


def test_an_older_page_is_replaced(make_run):
    folder = make_run(steps=2)
    (folder / "report.html").write_text("old")
    assert write_report(folder).read_text(encoding="utf-8") != "old"


def test_a_missing_strip_picture_leaves_a_gap(make_run):
    folder = make_run(steps=2)
    (folder / "strip" / "step_000002" / "000.png").unlink()
    assert "no picture" in text_of(write_report(folder))


def test_the_strip_is_also_one_picture(make_run, tmp_path):
    path = write_strip(make_run(steps=6), tmp_path / "strip.png", columns=3, tile=64)
    with Image.open(path) as picture:
        assert picture.size == (12 + 3 * 76, 12 + 17 + 4 * (76 + 17))


def test_a_run_without_a_strip_says_how_to_get_one(make_run, tmp_path):
    with pytest.raises(ValueError, match=r"evaluation\.strip_every"):
        write_strip(make_run(steps=1, pictures=False), tmp_path / "strip.png")
