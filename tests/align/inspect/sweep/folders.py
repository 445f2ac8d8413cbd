"""Run folders with evaluations, as `align train` and `align evaluate` leave them."""

import json

import yaml


def row(prompt, seed, rewards, group="all", completion=None):
    more = {} if completion is None else {"completion": completion}
    return {"prompt": prompt, "class": group, "seed": seed, "rewards": rewards, **more}


def run_folder(path, evaluations, *, seed=0, steps=4, **config):
    """A run; `evaluations` is step -> rows."""
    (path / "evaluations").mkdir(parents=True)
    settings = {"branch": "preference", "seed": seed, "training": {"steps": steps}, **config}
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    (path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    for step, rows in evaluations.items():
        record = {"step": step, "weights": "raw", "rewards": {}, "classes": {}, "rows": rows}
        (path / "evaluations" / f"step_{step:06d}.json").write_text(json.dumps(record))
    return path


def constant(a, b, prompts=("p", "q"), **more):
    """Every prompt with the same two scores, one seed."""
    return [row(prompt, 0, {"a": a, "b": b}, completion=f"{prompt} {a} {b}", **more) for prompt in prompts]
