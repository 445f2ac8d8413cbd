"""TRL's part of benchmarks/preference.py: its trainers as their users run them, but for the order of the pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any


def train(
    model: Any,
    rows: list[dict[str, list[int]]],
    setting: Any,  # Any: that file is run, not imported
    step_ends: Callable[[], None],
    constants: Mapping[str, float],
) -> list[float]:
    """DPOTrainer, or the experimental CPOTrainer. Returns the losses of all steps.

    Args:
        model: to train; with adapters if adapters are trained.
        rows: token ids of prompts and answers.
        setting: `Setting` of benchmarks/preference.py.
        step_ends: called at the end of each step.
        constants: `pairs` of a step, learning `rate`, `beta`, `ratio`, size of the `vocabulary`.
    """
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    losses: list[float] = []

    class Ends(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            step_ends()

    def text(ids: list[int], start: str) -> str:
        return start + " ".join("</s>" if token == 2 else f"w{token}" for token in ids)

    texts = [{name: text(ids, "" if name == "prompt" else " ") for name, ids in row.items()} for row in rows]
    trainer_class, config_class, options = _classes(setting.method, constants)
    with tempfile.TemporaryDirectory() as folder:
        args = config_class(
            output_dir=folder,
            per_device_train_batch_size=int(constants["pairs"]),
            max_steps=setting.steps,
            learning_rate=constants["rate"],
            lr_scheduler_type="constant",
            max_length=setting.prompt + setting.answer,
            logging_strategy="no",
            report_to="none",
            save_strategy="no",
            use_cpu=setting.device == "cpu",
            bf16=setting.device == "cuda",
            gradient_checkpointing=False,
            disable_tqdm=True,
            **options,
        )
        trainer = trainer_class(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(texts),
            processing_class=word_tokenizer(int(constants["vocabulary"])),
            callbacks=[Ends()],
        )
        trainer._get_train_sampler = SequentialSampler
        whole = trainer.compute_loss

        def recorded(*args: Any, **kwargs: Any) -> Any:
            out = whole(*args, **kwargs)
            losses.append(float((out[0] if isinstance(out, tuple) else out).detach()))
            return out

        trainer.compute_loss = recorded
        trainer.train()
    return losses


def word_tokenizer(size: int) -> Any:
    """One word, one token: `w17` is id 17. So TRL's own tokenising gives the lengths that were asked for."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(3, size)}
    special = {"<pad>": 0, "<s>": 1, "</s>": 2}  # no begin token: CPOTrainer would put one in front of every prompt
    tokenizer = Tokenizer(models.WordLevel({**special, **words}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def _classes(method: str, constants: Mapping[str, float]) -> tuple[Any, Any, dict[str, Any]]:
    from preference.trl import cpo_trainer, dpo_trainer

    if method == "dpo":
        return *dpo_trainer(), {"beta": constants["beta"], "precompute_ref_log_probs": True}
    options = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 2.0 * constants["ratio"]}
    return *cpo_trainer(), options
