"""Make the embedded language model. Stages, each starting from the files that the one before left in RUN:

    python -m preference.tiny.train truth  --run RUN --minutes 14
    python -m preference.tiny.train slips  --run RUN --minutes 4
    python -m preference.tiny.train export --run RUN      (writes preference/tiny/model and the log)
    python -m preference.tiny.own_answers                 (writes preference/tiny/pairs)

True answers first, to learn to read; then some wrong ones, to become unreliable as real models are (see `slips`). RUN
holds weights and `log.jsonl`; it does not belong in the repository. Seeds are fixed, but a time budget ends at another
step on another machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from preference.tiny import build, conversations, model_path
from preference.tiny.train_model import Log, Plan, train

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


def truth_stage(options: argparse.Namespace) -> None:
    """Random weights -> a model that has met true answers only."""
    _train(options, wrong_answers=False, start=None)


def slips_stage(options: argparse.Namespace) -> None:
    """That model -> one that has also met near misses."""
    _train(options, wrong_answers=True, start=options.run / "truth.safetensors")


def _train(options: argparse.Namespace, *, wrong_answers: bool, start: Path | None) -> None:
    tokenizer = new_tokenizer()
    network = build.network(tokenizer)
    if start is not None:
        network.load_state_dict(load_file(start), strict=False)  # the tied head is not in the file
    # The second stage reads other texts than the first, and moves half as fast.
    speed = 0.5 if wrong_answers else 1.0
    plan = Plan(
        minutes=options.minutes,
        wrong_answers=wrong_answers,
        batch_size=options.batch_size,
        learning_rate=speed * options.learning_rate,
        matrix_learning_rate=speed * options.matrix_learning_rate,
        seed=1 + wrong_answers,
    )
    weights = train(tokenizer, network, plan, logger(options.run / "log.jsonl"))
    save_file(weights, options.run / f"{'slips' if wrong_answers else 'truth'}.safetensors")


def export_stage(options: argparse.Namespace) -> None:
    """Write the model's folder in float16, and the log beside it."""
    tokenizer = new_tokenizer()
    network = build.network(tokenizer)
    network.load_state_dict(load_file(options.run / f"{options.weights}.safetensors"), strict=False)
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.half().save_pretrained(options.to)
    tokenizer.save_pretrained(options.to)
    if options.to == model_path():
        LOG_PATH.write_text((options.run / "log.jsonl").read_text(encoding="utf-8"), encoding="utf-8")


STAGES = {"truth": truth_stage, "slips": slips_stage, "export": export_stage}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description="Train the embedded language model.")
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--run", type=Path, required=True, help="folder of weights and the log")
    parser.add_argument("--to", type=Path, default=model_path(), help="export: the folder of the model")
    parser.add_argument("--weights", default="slips", choices=["truth", "slips"], help="export: of which stage")
    parser.add_argument("--minutes", type=float, default=14.0, help="time budget, which the learning rate follows")
    parser.add_argument("--batch-size", type=int, default=32, help="conversations per step")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of AdamW")
    parser.add_argument("--matrix-learning-rate", type=float, default=6e-3, help="of Muon, in AdamW's scale")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    options.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
