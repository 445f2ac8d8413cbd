"""The page on `align sweep`: its example can be trained as printed, and its Python names what is there."""

import re
import shlex
from pathlib import Path

from align.inspect.sweep.command import parse_sources
from align.inspect.sweep.trials import planned

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sweep.md").read_text(encoding="utf-8")


def test_the_example_plans_the_runs_that_its_output_shows(tmp_path):
    (settings,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (command,) = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    (tmp_path / "notes.yaml").write_text(settings)
    words = shlex.split(command.replace("\\\n", " "))
    tries = [words[place + 1] for place, word in enumerate(words) if word == "--try"]
    assert parse_sources([words[2]]) == ("notes.yaml", [])
    found = planned(str(tmp_path / "notes.yaml"), tries, (), tmp_path)
    assert [(trial.system, trial.label) for trial in found] == [
        ("dpa", "as configured"),
        ("separate", "positivity"),
        ("separate", "both"),
        ("separate", "brevity"),
    ]
    for trial in found[1:]:
        assert re.search(rf"^separate +{trial.label} +yes", PAGE, re.M)


def test_the_python_of_the_page_can_be_imported():
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    imports = "".join(line + "\n" for line in source.splitlines() if line.startswith("from"))
    names: dict = {}
    exec(compile(imports, "sweep.md", "exec"), names)
    for name in re.findall(r"\b(find_trade_offs|write_sweep|Source|parse_objectives)\(", source):
        assert callable(names[name])
