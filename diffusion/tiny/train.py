"""Train the embedded text-to-image model. Three stages, each resumable from the files of the run folder:

    python -m diffusion.tiny.train autoencoder --run RUN --minutes 8
    python -m diffusion.tiny.train transformer --run RUN --minutes 55
    python -m diffusion.tiny.train export      --run RUN --to diffusion/tiny/model

RUN holds checkpoints and `log.jsonl`; it does not belong in the repository. A thinned log is committed beside this file.
"""

import argparse
import json
from pathlib import Path

import torch

from diffusion.tiny import dataset, train_autoencoder
from diffusion.tiny.train_autoencoder import Log


def logger(path: Path) -> Log:
    """A function that appends one row to a JSONL file and prints it."""

    def log(row: dict[str, object]) -> None:
        rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
        with path.open("a") as file:
            file.write(json.dumps(rounded) + "\n")
        print(rounded, flush=True)

    return log


def autoencoder_stage(options: argparse.Namespace) -> None:
    """Train, check the round trip with the reader, set shift and scale from measured latents."""
    log = logger(options.run / "log.jsonl")
    pictures, _ = dataset.draw(20_000, seed=1)
    folder = options.run / "vae"
    model = train_autoencoder.train(
        pictures, folder=folder, minutes=options.minutes, batch_size=32, learning_rate=options.learning_rate, log=log
    )
    mean, std = train_autoencoder.measure_latents(model, pictures[:4000])
    model.register_to_config(shift_factor=mean, scaling_factor=1.0 / std)
    model.save_pretrained(folder)
    fresh, captions = dataset.draw(2000, seed=2)
    for noise in (0.0, 0.1, 0.2):
        share = train_autoencoder.round_trip_success(model, fresh, captions, noise=noise)
        log({"stage": "autoencoder", "round_trip_strict": share, "latent_noise": noise, "mean": mean, "std": std})


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description="Train the embedded text-to-image model.")
    parser.add_argument("stage", choices=["autoencoder"])
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints and the log")
    parser.add_argument("--minutes", type=float, default=8.0, help="time budget; the learning rate decays with elapsed time")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    options.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    {"autoencoder": autoencoder_stage}[options.stage](options)


if __name__ == "__main__":
    main()
