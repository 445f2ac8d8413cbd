"""Make the embedded language model. Stages, each starting from the files that the one before left in RUN:

    python -m preference.tiny.train truth   --run RUN --minutes 2.5
    python -m preference.tiny.train slips   --run RUN --minutes 2.5 --start truth
    python -m preference.tiny.train export  --run RUN --start slips     (writes preference/tiny/model and the log)
    python -m preference.tiny.own_answers                               (writes preference/tiny/pairs)

True answers first, to learn to read; then some wrong ones, to become unreliable as real models are (see `slips`). RUN
holds weights and `log.jsonl`; it does not belong in the repository. Minutes are of processor time; seeds are fixed, but
a time budget ends at another step on another machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from preference.tiny import build, conversations, model_path
from preference.tiny.train_model import TEXTS, Log, Plan, train

TOKENIZER_CONVERSATIONS = 4000
LOG_PATH = Path(__file__).resolve().parent / "training_log.jsonl"


def logger(path: Path) -> Log:
    """A function that appends one row to a JSONL file and prints it."""

    def log(row: dict[str, object]) -> None:
        rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
        print(rounded, flush=True)

    return log


def new_tokenizer() -> Any:
    """The tokenizer, always the same."""
    return build.tokenizer(conversations.tokenizer_texts(TOKENIZER_CONVERSATIONS, seed=0))


def training_stage(options: argparse.Namespace) -> None:
    """Train on the texts of a stage, from the weights of another one or from random ones."""
    tokenizer = new_tokenizer()
    network = build.network(tokenizer)
    if options.start is not None:
        _load(network, options.run / f"{options.start}.safetensors")
    plan = Plan(
        minutes=options.minutes,
        stage=options.stage,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        matrix_learning_rate=options.matrix_learning_rate,
        seed=1 + list(TEXTS).index(options.stage),
    )
    path = options.run / f"{options.stage}.safetensors"
    train(tokenizer, network, plan, logger(options.run / "log.jsonl"), lambda weights: save_file(weights, path))


def _load(network: Any, path: Path) -> None:
    """Weights of a stage; the head shares the embedding's and is not in the file."""
    network.load_state_dict(load_file(path), strict=False)


def export_stage(options: argparse.Namespace) -> None:
    """Write the model's folder in float16, and the log beside it."""
    tokenizer = new_tokenizer()
    network = build.network(tokenizer)
    _load(network, options.run / f"{options.start}.safetensors")
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.half().save_pretrained(options.to)
    tokenizer.save_pretrained(options.to)
    if options.to == model_path():
        LOG_PATH.write_text((options.run / "log.jsonl").read_text(encoding="utf-8"), encoding="utf-8")


STAGES = {**dict.fromkeys(TEXTS, training_stage), "export": export_stage}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description="Train the embedded language model.")
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--run", type=Path, required=True, help="folder of weights and the log")
    parser.add_argument("--to", type=Path, default=model_path(), help="export: the folder of the model")
    parser.add_argument("--start", choices=list(TEXTS), help="the stage whose weights are taken; none = random ones")
    parser.add_argument("--minutes", type=float, default=14.0, help="time budget, which the learning rate follows")
    parser.add_argument("--batch-size", type=int, default=16, help="conversations per step")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of AdamW")
    parser.add_argument("--matrix-learning-rate", type=float, default=6e-3, help="of Muon, in AdamW's scale")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    options.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
