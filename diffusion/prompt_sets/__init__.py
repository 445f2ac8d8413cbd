"""Small prompt sets of our own, so that every shipped recipe runs as it is.

They stand in for the published sets, which are not part of the suite: large enough for a step of each recipe, far too
small for its result.

* `animals`: one animal a prompt (DDPO's kind of prompt).
* `scenes`: a subject, a place, a style, for rewards of preference (PickScore, HPS).
* `ocr`: a text between double quotes to be written into the picture.
* `geneval`: prompts with the columns that GenEval's rules read (`align/rewards/geneval.py`).

`python -m diffusion.prompt_sets.make` writes the files. This module imports nothing heavy.
"""

from pathlib import Path

SETS = {"animals": ".txt", "scenes": ".txt", "ocr": ".txt", "geneval": ".jsonl"}
"""Names of the sets and the endings of their files."""
SPLITS = ("train", "heldout")


def set_path(name: str, split: str) -> Path:
    """File of a set.

    Args:
        name: one of `SETS`.
        split: `"train"` or `"heldout"`; no prompt is in both.
    """
    if name not in SETS or split not in SPLITS:
        raise ValueError(
            f"expected a set of {', '.join(SETS)} and a split of {', '.join(SPLITS)}, found {name}/{split}"
        )
    return Path(__file__).resolve().parent / f"{name}_{split}{SETS[name]}"
