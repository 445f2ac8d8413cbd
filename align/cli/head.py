"""What every command that trains shows and writes before it begins: the plan, what became of the data, the config."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.app import console
from align.config.load import CONFIG_NAME, save_config
from align.inspect.plan import Plan, print_plan

if TYPE_CHECKING:
    from align.engine.distributed import Processes


def show_plan(plan: Plan, processes: Processes, lines: Iterable[str] = ()) -> None:
    """Print the plan and some lines about the data, once for all processes."""
    if processes.is_main:
        print_plan(plan, console())
        for line in lines:
            console().print(line, soft_wrap=True, markup=False, highlight=False)


def write_head(
    config: Any, folder: Path, plan: Plan, processes: Processes, *, command: str = "", layout: str | None = None
) -> None:
    """Write config and plan into a run folder, before anything is trained, and say where it is.

    Args:
        config: root dataclass of a branch (Any: each has its own).
        folder: of the run.
        plan: of the run.
        processes: only the main one writes.
        command: what was typed, for the comment in the config.
        layout: how rows of texts are laid out and why, for branches that choose; kept in plan.json, too.
    """
    if not processes.is_main:
        return
    save_config(config, folder / CONFIG_NAME, command=command)
    record = plan.to_json() if layout is None else {**plan.to_json(), "layout": layout}
    (folder / "plan.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    if layout is not None:
        console().print(f"layout: {layout}", soft_wrap=True, markup=False, highlight=False)
    console().print(f"\nrun folder: {folder}\n", soft_wrap=True, highlight=False)
