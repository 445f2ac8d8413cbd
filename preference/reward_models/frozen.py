"""Reward heads without training the network: one pass for the features, ridge regression, a gate if one is asked for.

The result is the same kind of folder as after training: transformers loads it, and it is a reward by name. Processes
share the rows; each holds the whole model, in `model.dtype`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from align.cli.head import show_plan, write_head
from align.config.load import CONFIG_NAME
from align.engine.adapters import Policy
from align.engine.checkpoint import make_readable
from align.engine.command import open_folder, processes_of
from align.engine.metrics_file import MetricsFile
from align.engine.random import generator
from align.errors import AlignError
from align.heldout import write_record
from align.report.build import write_report
from align.rewards.ridge import RidgeHead, fit_ridge, laid_aside
from preference.assemble import record_path
from preference.reward_models.assemble import evaluator_of, read_inputs
from preference.reward_models.batches import StoredRatings
from preference.reward_models.commands import WEIGHTS
from preference.reward_models.config import RewardModelRun, RewardRidgeConfig
from preference.reward_models.evaluate import Evaluator, Shared
from preference.reward_models.features import answer_features
from preference.reward_models.files import Card, load_reward_model, save_reward_model
from preference.reward_models.gate import FittedGate, gate_pairs, make_gate
from preference.reward_models.judge import write_gate
from preference.reward_models.methods import Scored
from preference.reward_models.network import HEAD, RewardModel
from preference.reward_models.plan import plan
from preference.reward_models.report import write_reward_report


def fit(
    config: RewardModelRun, algorithm: RewardRidgeConfig, *, name: str, resume: Path | None, command: str = ""
) -> Path:
    """Fit the heads; arguments and result as of `commands.train`.

    Raises:
        AlignError: there is nothing to go on with: a fit is made in one go.
    """
    if resume is not None:
        raise AlignError("a ridge regression is made in one go and cannot be resumed.", "Run its config again.")
    with processes_of(config.training) as (accelerator, processes):
        inputs = read_inputs(config)
        pairs = None if algorithm.gate is None else gate_pairs(config, algorithm.gate)
        planned = plan(config, processes.world)
        show_plan(planned, processes, inputs.reports())
        folder = open_folder(config.output, name, None, processes)
        try:
            model = load_reward_model(config.model, config.names, seed=None, device=accelerator.device)
            write_head(config, folder.path, planned, processes, command=command)
            work = Shared(processes=processes, batch_size=config.training.micro_batch_size)
            ratings = inputs.train
            assert isinstance(ratings, StoredRatings)  # the checks have seen to it
            features = answer_features(model, ratings, work)
            head = _fit_head(config, algorithm, ratings, features)
            with torch.no_grad():
                weight = getattr(model.network, HEAD).weight
                weight.copy_(head.weight.to(weight))
            gate = None
            if algorithm.gate is not None and pairs is not None:
                gate = make_gate(config, algorithm.gate, model, head(features), pairs, work)
            evaluator = evaluator_of(config, Scored.frozen(model.network, model.pad_id), inputs, processes)
            _record(folder.path, evaluator, {} if gate is None else gate.figures, main=processes.is_main)
            if processes.is_main:
                _save(folder.path, model, inputs.card, gate)
            processes.barrier()
        finally:
            folder.close()
    return folder.path


def _fit_head(
    config: RewardModelRun, algorithm: RewardRidgeConfig, ratings: StoredRatings, features: torch.Tensor
) -> RidgeHead:
    try:
        aside = laid_aside(ratings.group_ids, algorithm.chosen_on, generator(config.seed, "ridge"))
        return fit_ridge(features, ratings.labels, heldout=aside)
    except ValueError as error:
        way_out = "Give more prompts with labels, or change `algorithm.chosen_on`."
        raise AlignError(f"the heads cannot be fitted: {error}.", way_out) from error


def _record(folder: Path, evaluator: Evaluator | None, further: Mapping[str, float], *, main: bool) -> None:
    """One evaluation, as step 1; there is nothing worth comparing before it. A collective."""
    if evaluator is None:
        return
    found = evaluator().with_figures(further)
    if main:
        record = found.record(1, "raw")
        write_record(record_path(folder, 1), record)
        write_reward_report(folder, found, 1, "raw")
        metrics = MetricsFile(folder / "metrics.jsonl")
        metrics.append(1, record.metrics())
        metrics.close()


def _save(folder: Path, model: RewardModel, card: Card, gate: FittedGate | None) -> None:
    target, policy = folder / WEIGHTS, Policy(model.network, {})  # no weight is trained
    save_reward_model(model, target, policy, card if gate is None else replace(card, gate=gate.settings))
    if gate is not None:
        write_gate(target, gate.network, gate.transform)
    make_readable(target, like=folder / CONFIG_NAME)
    write_report(folder)
