"""The embedded language model: a real `LlamaForCausalLM` folder that answers questions about short notes.

* `world`: prompts <-> notes and questions, and the one true answer.
* `wording`: all ways to say an answer, and the polite and impolite sentences around it.
* `slips`: the near miss of a question; what makes the base model unreliable.
* `reward`: `correct`, `brevity`, `positivity`, three rewards that read the text and nothing else.
* `build`, `start`, `conversations`, `train`, `train_model`, `muon`: how tokenizer and weights in `model/` were made.
* `own_answers`: how the pairs in `pairs/` were made, from the model's own answers.
* `evaluate`: how good it is, per class of prompts.

    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> from preference.tiny import model_path
    >>> model = AutoModelForCausalLM.from_pretrained(model_path())  # doctest: +SKIP

This module imports nothing heavy.
"""

from pathlib import Path


def model_path() -> Path:
    """Folder of the embedded model, for `AutoModelForCausalLM.from_pretrained`."""
    return Path(__file__).resolve().parent / "model"


def pairs_path(split: str) -> Path:
    """File of pairs in TRL's conversational format, with the prompt's class.

    Args:
        split: `"train"` or `"heldout"`; no note is in both, and the base model has met no held-out note.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f"expected split 'train' or 'heldout', found {split!r}")
    return Path(__file__).resolve().parent / "pairs" / f"{split}.jsonl"
