"""Data -> dataclasses: strict types, unknown keys, kinds, all problems at once."""

import pytest

from align.config.branches import branches
from align.config.errors import ConfigError
from align.config.load import load_config
from align.errors import AlignError


def problems(load, *args):
    with pytest.raises(ConfigError) as caught:
        load(*args)
    return [str(problem) for problem in caught.value.problems]


def test_defaults_and_values(toy):
    run = toy.load("branch: toy\nrate: 1e-4\nsteps: 3\nbetas: [1, 2]\nprecision: no\ntargets: [a, b]\n")
    assert run.rate == 1e-4
    assert run.betas == (1.0, 2.0)
    assert run.precision == "no"  # not False
    assert run.targets == ("a", "b")
    assert run.sampler == toy.Wild()
    assert run == toy.Run(rate=1e-4, steps=3, betas=(1.0, 2.0), targets=("a", "b"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("steps: '8'", "`steps` expects a whole number, found '8' (text).\n    Write 8 without quotes."),
        ("steps: 8.0", "`steps` expects a whole number, found 8.0 (number with decimals)."),
        ("steps: true", "`steps` expects a whole number, found true (true/false)."),
        ("steps: 0", "`steps` expects a number greater than 0, found 0 (whole number)."),
        ("rate: fast", "`rate` expects a number, found 'fast' (text)."),
        ("rate: true", "`rate` expects a number, found true (true/false)."),
        ("rate: .nan", "`rate` expects a finite number, found NaN (number with decimals)."),
        ("rate: .inf", "`rate` expects a finite number, found Infinity (number with decimals)."),
        ("rate:", "`rate` expects a number, found nothing (null).\n    Leave `rate` out to take its default."),
        ("precision: bf61", "`precision` expects 'no' or 'bf16', found 'bf61' (text).\n    Did you mean `bf16`?"),
        ("betas: [1]", "`betas` has too few values: number 2 is missing."),
        ("betas: [1, 2, 3]", "`betas` expects at most 2 values, found a list of 3."),
        ("targets: 3", "`targets` expects 'attention' or a list, found 3 (whole number)."),
        ("average: 3", "`average` expects a section (indented `key: value` lines), found 3 (whole number)."),
        ("average: {decay: 1.5}", "`average.decay` expects a number of at most 1, found 1.5 (number with decimals)."),
        ("items: {function: f}", "`items` expects a list, found a section with `function`."),
        ("items: [{weight: 2}]", "`items.0.function` is missing; it has no default.\n    Add `function: ...` there."),
        (
            "sampler: {kind: wyld}",
            "`sampler.kind` expects one of calm, wild, found 'wyld' (text).\n    Did you mean `wild`?",
        ),
    ],
)
def test_wrong_values(toy, line, expected):
    assert problems(toy.load, f"branch: toy\n{line}\n") == [f"toy.yaml, line 2: {expected}"]


def test_unknown_key_names_the_nearest_and_the_known_ones(toy):
    (problem,) = problems(toy.load, "branch: toy\naverage:\n  dekay: 0.5\n")
    assert problem.startswith("toy.yaml, line 3: `average.dekay` is unknown.")
    assert "Did you mean `decay`?" in problem
    assert "Settings of `average`: decay." in problem


def test_unknown_key_that_lives_elsewhere(toy):
    (problem,) = problems(toy.load, "branch: toy\ndecay: 0.5\n")
    assert "There is `average.decay`." in problem


def test_a_key_of_another_kind_says_which_kind_has_it(toy):
    (problem,) = problems(toy.load, "branch: toy\nsampler: {kind: calm, noise_level: 0.3}\n")
    assert "`noise_level` is not a setting of `calm` (in `sampler`); `wild` has it." in problem
    assert "Settings of `calm`: kind, draws." in problem


def test_all_problems_at_once_in_the_order_of_the_file(toy):
    text = "branch: toy\nsteps: x\nitems:\n- {function: f, wait: 2}\nstebs: 3\nrate: y\n"
    found = problems(toy.load, text, "seed=no")
    assert [problem.partition(": ")[0] for problem in found] == [
        "toy.yaml, line 2",
        "toy.yaml, line 4",
        "toy.yaml, line 5",
        "toy.yaml, line 6",
        "override `seed=no`",
    ]
    assert "Did you mean `weight`?" in found[1]


def test_a_section_without_kind_is_of_the_default_kind(toy):
    assert toy.load("branch: toy\nsampler: {noise_level: 0.3}\n").sampler == toy.Wild(noise_level=0.3)
    assert toy.load("branch: toy\n", "sampler.noise_level=0.3").sampler == toy.Wild(noise_level=0.3)


def test_missing_and_unknown_branch(toy):
    (missing,) = problems(toy.load, "seed: 1\n")
    assert "`branch` is missing" in missing
    known = [*branches(), "toy"]
    assert " or ".join(f"`branch: {name}`" for name in known) in missing
    (unknown,) = problems(toy.load, "seed: 1\nbranch: difusion\n")
    expected = f"toy.yaml, line 2: `branch` expects one of {', '.join(known)}, found 'difusion' (text)."
    assert unknown.startswith(expected)
    assert "Did you mean `diffusion`?" in unknown
    assert toy.load("seed: 1\n", "branch=toy").seed == 1


def test_a_config_that_is_not_there(tmp_path):
    with pytest.raises(AlignError, match="no config file, run folder or shipped config") as caught:
        load_config("awm_tinny")
    assert "Did you mean the shipped config" in str(caught.value)
    with pytest.raises(AlignError, match=r"folder without config\.yaml"):
        load_config(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"seed: \xff\n")
    with pytest.raises(AlignError, match="UTF-8"):
        load_config(tmp_path / "x.yaml")


def test_a_byte_order_mark_is_no_problem(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfbranch: diffusion\nseed: 7\n")
    assert load_config(tmp_path / "x.yaml", check=False).seed == 7


def test_the_config_of_a_run_folder_and_of_its_checkpoints(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "step_000010"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("branch: diffusion\nseed: 9\n")
    assert load_config(tmp_path / "run", check=False).seed == 9
    assert load_config(checkpoint, check=False).seed == 9
