"""The documents keep their word: links lead somewhere, files and settings exist, code runs."""

import re
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from align.adapter.config import AdapterRun
from diffusion.config import DiffusionRun
from preference.config import PreferenceRun
from preference.dpa.config import DpaRun
from preference.reward_models.config import RewardModelRun

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"((?:align|diffusion|preference|configs|tests|docs)/[\w/]+\.(?:py|yaml|md))(?::(\w+))?")
THEIRS = ("names.md",)  # its left column is made of other projects' settings


def setting_keys(kind, prefix: str = "") -> set[str]:
    """Every dotted key below a type: dataclass fields, members of unions, entries of tuples by number."""
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        own = {prefix + name for name in names}
        return own.union(*(setting_keys(hints[name], f"{prefix}{name}.") for name in names))
    members = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and members:
        return {f"{prefix}0"} | setting_keys(members[0], f"{prefix}0.")
    return set().union(*(setting_keys(member, prefix) for member in members))


KEYS = set().union(*map(setting_keys, (DiffusionRun, PreferenceRun, RewardModelRun, AdapterRun, DpaRun)))
SECTIONS = {key for key in KEYS if "." not in key}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_inside_the_repository_lead_somewhere(page):
    targets = [link.partition("#")[0] for link in LINK.findall(text_of(page)) if "://" not in link]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_and_names_in_them_exist(page):
    missing = []
    for code in CODE.findall(text_of(page)):
        found = FILE.fullmatch(code)
        if found is None:
            continue
        path, name = ROOT / found[1], found[2]
        if "my_" in found[1]:
            continue  # the reader's own file
        if not path.is_file() or (name and not re.search(rf"^(?:def|class) {name}\b|^{name}\b", text_of(path), re.M)):
            missing.append(code)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_exist(page):
    if page.name in THEIRS:
        cells = [line.split("|")[2] for line in text_of(page).splitlines() if line.startswith("|")]
        codes = [code for cell in cells for code in CODE.findall(cell)]
    else:
        codes = CODE.findall(text_of(page))
    keys = [re.split(r"[:=\s]", code)[0] for code in codes]
    keys = [key for key in keys if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", key) and key.split(".")[0] in SECTIONS]
    keys = [key for key in keys if not key.endswith(".safetensors")]
    assert [key for key in keys if key not in KEYS] == []


def test_the_walk_over_settings_finds_nested_ones():
    assert {"algorithm.times.draws", "rewards.0.weight", "training.ema.decay", "rollout.sampler.noise_level"} <= KEYS
    assert "rollout.sampler.draws" not in KEYS


def test_awm_on_a_toy_runs_as_printed_and_learns():
    """A ring of radius 2 is 8 / pi = 2.55 away from the point (2, 0) on average; AWM should more than halve that."""
    (source,) = re.findall(r"```python\n(.*?)```", text_of(ROOT / "docs" / "awm.md"), re.S)
    assert len(source.splitlines()) < 60
    names: dict = {}
    exec(compile(source, "docs/awm.md", "exec"), names)
    assert names["before"].item() == pytest.approx(-2.55, abs=0.25)
    assert names["after"].item() > -1.2
