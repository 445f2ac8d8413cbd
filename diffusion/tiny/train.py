"""Make the embedded text-to-image model. Stages, each starting from the files that the one before left in RUN:

    python -m diffusion.tiny.train autoencoder --run RUN --minutes 8
    python -m diffusion.tiny.train latents     --run RUN
    python -m diffusion.tiny.train transformer --run RUN --minutes 27 --stop 15
    python -m diffusion.tiny.train latents     --run RUN --wrong-captions
    python -m diffusion.tiny.train transformer --run RUN --minutes 27
    python -m diffusion.tiny.train export      --run RUN --to diffusion/tiny/model
    python -m diffusion.tiny.train log         --run RUN        (thins the log into the repository)
    python -m diffusion.tiny.train prompts     --run RUN        (writes the prompt files)

True captions first, to learn to draw; then some wrong ones, to become unreliable as real models are (see `slips`).
RUN holds checkpoints and `log.jsonl`; it does not belong in the repository. `transformer` resumes from its last
checkpoint and `export` may be called while it trains. On Linux, set MALLOC_MMAP_MAX_=0 and
MALLOC_TRIM_THRESHOLD_=100000000000: otherwise the C library hands every large tensor back to the system, and half of
the time goes into page faults.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from diffusion.tiny import build, dataset, flow_matching, model_path, prompts_path, train_autoencoder, train_transformer
from diffusion.tiny.train_autoencoder import Log

PICTURES = 60_000  # of the transformer
AUTOENCODER_PICTURES = 20_000
CHECKED_PICTURES = 2_000
LOG_ROWS = 400


def logger(path: Path) -> Log:
    """A function that appends one row to a JSONL file and prints it."""

    def log(row: dict[str, object]) -> None:
        rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
        with path.open("a") as file:
            file.write(json.dumps(rounded) + "\n")
        print(rounded, flush=True)

    return log


def autoencoder_stage(options: argparse.Namespace) -> None:
    """Train, set shift and scale from measured latents, check the round trip with the reader."""
    log = logger(options.run / "log.jsonl")
    pictures, _ = dataset.draw(AUTOENCODER_PICTURES, seed=1)
    folder = options.run / "vae"
    model = train_autoencoder.train(
        pictures, folder=folder, minutes=options.minutes, batch_size=32, learning_rate=options.learning_rate, log=log
    )
    mean, std = train_autoencoder.measure_latents(model, pictures[:2000])
    model.register_to_config(shift_factor=mean, scaling_factor=1.0 / std)
    model.save_pretrained(folder)
    fresh, captions = dataset.draw(CHECKED_PICTURES, seed=2)
    for noise in (0.0, 0.2):
        share = train_autoencoder.round_trip_success(model, fresh, captions, noise=noise)
        log({"stage": "autoencoder", "round_trip_strict": share, "latent_noise": noise, "mean": mean, "std": std})


def latents_stage(options: argparse.Namespace) -> None:
    """Draw the training pictures and cache their normalised latents with their captions."""
    pictures, captions = dataset.draw(PICTURES, seed=3, wrong_captions=options.wrong_captions)
    vae = AutoencoderKL.from_pretrained(options.run / "vae")
    latents = train_autoencoder.normalised_latents(vae, pictures).half().contiguous()
    save_file({"latents": latents}, options.run / "latents.safetensors")
    (options.run / "captions.json").write_text(json.dumps(captions))


def transformer_stage(options: argparse.Namespace) -> None:
    """Train transformer and text encoders on the cached latents."""
    plan = train_transformer.Plan(
        minutes=options.minutes,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        matrix_learning_rate=options.matrix_learning_rate,
        stop=options.stop,
    )
    train_transformer.train(
        load_file(options.run / "latents.safetensors")["latents"],
        json.loads((options.run / "captions.json").read_text()),
        build.tokenizer(),
        folder=options.run,
        plan=plan,
        log=logger(options.run / "log.jsonl"),
    )


def export_stage(options: argparse.Namespace) -> None:
    """Write the pipeline folder with averaged weights: float16, but float32 for the small text encoders.

    transformers loads a text model in the type of its file, diffusers loads the other parts in float32, and a pipeline
    of two types cannot run; so the text encoders' files are float32.
    """
    torch.manual_seed(0)  # the silent T5 has random weights that nothing reads; another export must not change them
    tokenizer = build.tokenizer()
    model = flow_matching.Model(tokenizer)
    state = torch.load(options.run / "transformer.pt", weights_only=True)
    model.load_state_dict({**state["model"], **state["ema"]})
    vae = _trained_autoencoder(options.run / "vae")
    encoders = (model.text_encoder, model.text_encoder_2)
    pipeline = build.assemble(vae.half(), model.transformer.half(), encoders, tokenizer)
    pipeline.save_pretrained(options.to)
    print(f"step {state['step']}, {state['seconds'] / 60:.1f} minutes of training -> {options.to}")


def _trained_autoencoder(folder: Path) -> AutoencoderKL:
    """The trained autoencoder in a fresh object: a loaded one writes the path it came from into its config."""
    trained, fresh = AutoencoderKL.from_pretrained(folder), build.autoencoder()
    fresh.load_state_dict(trained.state_dict())
    config = trained.config
    fresh.register_to_config(shift_factor=config["shift_factor"], scaling_factor=config["scaling_factor"])
    return fresh


def prompts_stage(options: argparse.Namespace) -> None:
    """Write the prompt files; needs no run."""
    for split in dataset.ROWS:
        lines = [json.dumps(row) for row in dataset.prompt_rows(split)]
        prompts_path(split).write_text("\n".join(lines) + "\n")


def log_stage(options: argparse.Namespace) -> None:
    """Copy the run's log beside this file, at most some hundreds of rows."""
    rows = (options.run / "log.jsonl").read_text().splitlines()
    every = max(1, len(rows) // LOG_ROWS)
    kept = [row for k, row in enumerate(rows) if k % every == 0 or "round_trip" in row or k == len(rows) - 1]
    (Path(__file__).parent / "training_log.jsonl").write_text("\n".join(kept) + "\n")


STAGES = {
    "autoencoder": autoencoder_stage,
    "latents": latents_stage,
    "transformer": transformer_stage,
    "export": export_stage,
    "prompts": prompts_stage,
    "log": log_stage,
}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description="Train the embedded text-to-image model.")
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints and the log")
    parser.add_argument("--to", type=Path, default=model_path(), help="export: the folder of the pipeline")
    parser.add_argument("--minutes", type=float, default=8.0, help="time budget, which the learning rate follows")
    parser.add_argument(
        "--stop", type=float, default=float("inf"), help="transformer: minutes after which to stop early"
    )
    parser.add_argument(
        "--wrong-captions", action="store_true", help="latents: some pictures are near misses of theirs"
    )
    parser.add_argument("--batch-size", type=int, default=128, help="transformer: pictures per step")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="of AdamW")
    parser.add_argument("--matrix-learning-rate", type=float, default=3e-3, help="of Muon, in AdamW's scale")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    options.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
