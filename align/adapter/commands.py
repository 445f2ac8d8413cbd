"""What `align train` does for a preference adapter: wire the parts, in order. No formula.

The command line imports this module late: it loads torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from align.adapter.config import AdapterRun
from align.adapter.examples import Examples, fitted_normaliser, split, targets_of
from align.adapter.files import save_adapter
from align.adapter.plan import plan
from align.adapter.pro import Pro
from align.adapter.record import FOLDER, AdapterRecord
from align.adapter.rows import PreferredRows, read_rows
from align.adapter.verdict import judge
from align.cli.head import show_plan, write_head
from align.encoders.load import load_encoder
from align.encoders.store import StoredVectors
from align.engine.adapters import Policy
from align.engine.command import check_resumable, open_folder, processes_of
from align.engine.hooks import Hooks
from align.engine.loop import train as train_loop
from align.engine.random import generator
from align.engine.run import Run
from align.engine.settings import RunSettings
from align.errors import AlignError
from align.report.build import write_report
from align.shaping.adapter import PreferenceAdapter
from align.shaping.normaliser import Normaliser

if TYPE_CHECKING:
    from rich.console import Console

    from align.encoders.base import TextEncoder
    from align.engine.distributed import Processes

__all__ = ["evaluate", "export", "generate", "score", "train"]

VECTORS = "vectors"
"""Folder of a run that keeps what the encoder said."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a run learns from and is judged by.

    Attributes:
        train, heldout: as the adapter sees them.
        heldout_prompts: texts of the latter.
        normaliser: fitted to the training rows.
        encoder: what made the vectors.
    """

    train: Examples
    heldout: Examples
    heldout_prompts: tuple[str, ...]
    normaliser: Normaliser
    encoder: TextEncoder


def train(
    config: AdapterRun,
    *,
    name: str = "run",
    resume: Path | None = None,
    command: str = "",
    encoder: TextEncoder | None = None,
) -> Path:
    """Train an adapter, or go on with a run.

    Args:
        config: the run's settings, already checked.
        name: of the run folder where `output.name` is not set; a number is appended.
        resume: run folder to go on with.
        command: what was typed, for the comment in the saved config.
        encoder: one that is loaded already; None loads the one that the settings name.

    Returns:
        The run folder; `adapter/` in it is the adapter.
    """
    with processes_of(config.training) as (accelerator, processes):
        train_rows, heldout_rows = read_material(config)
        folder = open_folder(config.output, name, resume, processes)
        try:
            planned = plan(config, processes.world)
            show_plan(planned, processes)
            write_head(config, folder.path, planned, processes, command=command)
            encoder = encoder or load_encoder(config.encoder, str(accelerator.device))
            vectors = StoredVectors(encoder, folder.path / VECTORS, processes)
            material = material_of(config, train_rows, heldout_rows, encoder, vectors)
            policy = Policy.full(_new_adapter(config, material), identity=_identity(config, encoder))
            run = Run(accelerator, folder, policy, RunSettings.of(config))
            check_resumable(folder, policy)
            method = Pro(
                config, material.train, material.heldout, policy=policy, processes=processes, stop=run.stop_after_step
            )
            if len(material.heldout):
                run.hooks = Hooks(evaluate=method.evaluate, evaluate_every=config.stopping.every)
            outcome = train_loop(run, method)
            if outcome.step == config.training.steps or method.stopped_early:
                _finish(config, folder.path, material, method, policy, processes)
            if processes.is_main:
                write_report(folder.path)
            processes.barrier()
        finally:
            folder.close()
    return folder.path


def read_material(config: AdapterRun) -> tuple[PreferredRows, PreferredRows]:
    """Rows to learn from and rows to judge by.

    Raises:
        AlignError: a file or a row that cannot be used; says which and what to do.
    """
    contrastive = config.target.contrastive
    train_rows = read_rows(config.data.train, config.objectives, rejected=contrastive)
    if config.data.heldout is not None:
        return train_rows, read_rows(config.data.heldout, config.objectives, rejected=contrastive)
    return split(train_rows, config.data.heldout_share, config.seed)


def material_of(
    config: AdapterRun,
    train_rows: PreferredRows,
    heldout_rows: PreferredRows,
    encoder: TextEncoder,
    vectors: StoredVectors,
) -> Material:
    """Vectors and targets of both sets of rows; a collective where the vectors are shared out."""
    normaliser = fitted_normaliser(train_rows, config.target)
    every = vectors((*train_rows.prompts, *heldout_rows.prompts))
    count = len(train_rows)

    def examples(rows: PreferredRows, first: int) -> Examples:
        own = every[first : first + len(rows)]
        if not len(rows):
            width = len(config.objectives)
            return Examples(vectors=own, targets=every.new_zeros(0, width), available=every.new_zeros(0, width).bool())
        targets, available = targets_of(rows, config.target, normaliser)
        return Examples(vectors=own, targets=targets, available=available)

    return Material(
        train=examples(train_rows, 0),
        heldout=examples(heldout_rows, count),
        heldout_prompts=heldout_rows.prompts,
        normaliser=normaliser,
        encoder=encoder,
    )


def _new_adapter(config: AdapterRun, material: Material) -> PreferenceAdapter:
    """Drawn from the seed, whatever was drawn before."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.seed, "adapter_weights").initial_seed())
        return PreferenceAdapter(
            material.train.vectors.shape[1], len(config.objectives), config.head.hidden_size, config.head.temperature
        )


def _identity(config: AdapterRun, encoder: TextEncoder) -> dict[str, str]:
    return {"objectives": ", ".join(config.objectives), "encoder": encoder.fingerprint()}


def _finish(
    config: AdapterRun, folder: Path, material: Material, method: Pro, policy: Policy, processes: Processes
) -> None:
    """Judge the best weights and save them with the verdict."""
    best = method.best_weights()
    with policy.swapped(best):
        own, constant = method.heldout_divergences()
    verdict = judge(
        own.cpu(),
        constant.cpu(),
        prompts=material.heldout_prompts,
        step=method.best_step if len(material.heldout) else config.training.steps,
        objectives=config.objectives,
        train_targets=material.train.targets.cpu(),
    )
    with policy.swapped(best), policy.assembled(keep=processes.is_main) as whole:
        if not processes.is_main:
            return
        record = AdapterRecord(
            objectives=config.objectives,
            encoder=asdict(config.encoder),
            encoder_name=material.encoder.name,
            encoder_fingerprint=material.encoder.fingerprint(),
            embedding_size=material.train.vectors.shape[1],
            hidden_size=config.head.hidden_size,
            temperature=config.head.temperature,
            target=asdict(config.target),
            report=verdict.to_json(),
        )
        save_adapter(folder / FOLDER, dict(whole.state_dict()), material.normaliser, record)
        for sentence in verdict.sentences():
            _print(sentence)
        _print(f"Adapter: {folder / FOLDER}")


def evaluate(config: AdapterRun, **options: object) -> NoReturn:
    """Not needed.

    Raises:
        AlignError: always; says where the numbers are.
    """
    raise AlignError(
        "an adapter is judged on its held-out rows while it is trained.",
        f"The verdict is in `{FOLDER}/adapter.json` of the run folder; `align adapter RUN -p 'a prompt'` asks it.",
    )


def _not_for_adapters(what: str) -> AlignError:
    return AlignError(
        f"`align {what}` is for models that draw or write; an adapter weighs prompts.",
        "Ask it with `align adapter RUN -p 'a prompt'`.",
    )


def generate(config: AdapterRun, **options: object) -> NoReturn:
    """Not for adapters.

    Raises:
        AlignError: always; says what asks one.
    """
    raise _not_for_adapters("generate")


def score(*arguments: object, **options: object) -> NoReturn:
    """Not for adapters.

    Raises:
        AlignError: always; says what asks one.
    """
    raise _not_for_adapters("score")


def export(config: AdapterRun, **options: object) -> NoReturn:
    """Not needed: an adapter is a folder of safetensors and JSON.

    Raises:
        AlignError: always; says where it is.
    """
    raise AlignError("`align export` writes weights of image models.", f"An adapter's are in `{FOLDER}/` of its run.")


def _print(text: str) -> None:
    _console().print(text, soft_wrap=True, markup=False, highlight=False)


def _console() -> Console:
    from align.cli.app import console

    return console()
