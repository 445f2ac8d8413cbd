"""The README's two command lines are the ones that `.ci/run` runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _readme_lines() -> list[str]:
    """Contents of the README's shell blocks that install the package: one command line each."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [block.strip() for block in blocks if "pip install" in block]


def _ci_lines() -> list[str]:
    """The commands between the marks in `.ci/run`."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    return [line.strip() for line in re.findall(r"# --- (?:first|test) line\n(.*?)\n# ---", script, re.DOTALL)]


def test_both_lines_of_the_readme_are_the_ones_that_ci_runs() -> None:
    assert _readme_lines() == _ci_lines()


def test_each_line_is_one_command_line_that_installs_and_runs() -> None:
    main, test = _readme_lines()
    assert main.startswith("pip install -e . &&")
    assert main.endswith("align demo")
    assert "pytest" in test
    assert "\n" not in main + test
