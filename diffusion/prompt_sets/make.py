"""Writes the prompt sets. Nothing is random: the same files every time.

python -m diffusion.prompt_sets.make
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align.rewards.geneval import COLOURS
from diffusion.prompt_sets import SPLITS, set_path

ANIMALS = (
    "cat", "dog", "horse", "cow", "sheep", "goat", "pig", "rabbit", "mouse", "fox", "wolf", "bear", "lion",
    "tiger", "leopard", "cheetah", "elephant", "giraffe", "zebra", "rhino", "hippo", "camel", "deer", "moose",
    "kangaroo", "koala", "panda", "monkey", "gorilla", "lemur", "otter", "beaver", "badger", "squirrel",
    "hedgehog", "bat", "seal", "whale", "dolphin", "shark", "octopus", "crab", "lobster", "turtle",
    "tortoise", "lizard", "snake", "frog", "newt", "crocodile", "eagle", "owl", "hawk", "parrot", "penguin",
    "swan", "duck", "goose", "turkey", "peacock", "flamingo", "pelican", "heron", "crow", "ant", "bee",
    "butterfly", "beetle", "ladybird", "dragonfly", "spider", "snail", "salmon", "trout", "goldfish",
    "seahorse", "starfish", "jellyfish", "llama", "donkey",
)  # fmt: skip
"""The last sixteen are held out."""
SUBJECTS = (
    "an old sailor", "a girl with a lantern", "a baker", "a robot gardener", "two chess players", "a white horse",
    "a red fox", "a sleeping cat", "a flock of cranes", "a small dragon", "a steam train", "a wooden boat",
    "a glass teapot", "a bowl of cherries", "a stone bridge", "a lighthouse", "a windmill", "a village market",
    "a snowy mountain", "a field of poppies",
    "a violin maker", "a tortoise with a hat", "a paper lantern", "a castle of sand", "a waterfall",
)  # fmt: skip
"""The last five are held out."""
PLACES = (
    "at dawn", "in the rain", "under a starry sky", "in thick fog", "by candlelight", "in front of a blue wall",
    "on a winter evening", "in bright summer sun", "beside a calm lake", "in a quiet alley",
)  # fmt: skip
STYLES = (
    "oil painting", "watercolour", "photograph, shallow depth of field", "pencil drawing", "poster, flat colours",
    "woodcut",
)  # fmt: skip
TEXTS = (
    "Open", "Fresh Bread", "Platform 9", "Mind the Step", "Free Coffee", "No Entry", "Lost and Found", "Happy Birthday",
    "Library", "Wet Paint", "Summer Sale", "Please Ring", "Room 204", "Slow Down", "Farm Eggs", "Good Morning",
    "Bus Stop", "Night Shift", "Quiet Please", "Best Friends", "Harbour View", "Spring Concert", "Repair Shop",
    "Keep Left",
    "Closed", "Hot Soup", "Gate 12", "Book Club", "Do Not Feed", "Thank You", "River Walk", "Tea House", "Last Train",
    "New Shoes", "Apple Pie", "Snow Today", "Music Hall", "Fire Exit", "Ship Ahoy", "Blue Door",
)  # fmt: skip
"""The last sixteen are held out."""
SETTINGS = (
    "a shop window with the words", "a wooden sign that says", "a chalkboard with the text", "a neon sign that reads",
    "a street poster with the title", "a paper cup labelled", "a T-shirt printed with", "a cake with the icing text",
    "a road sign that reads", "a book cover with the title", "graffiti on a brick wall that says",
    "a banner above a market stall with the words",
)  # fmt: skip
OBJECTS = (
    "dog", "cat", "bench", "car", "bicycle", "apple", "banana", "chair", "clock", "cup", "bird", "horse", "umbrella",
    "book", "boat", "bottle",
)  # fmt: skip
"""Classes of COCO, which GenEval's detector knows."""
NUMBERS = {2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
Row = dict[str, Any]  # Any: JSON


def animals() -> dict[str, list[str]]:
    """64 to train on, 16 held out."""
    return {"train": list(ANIMALS[:64]), "heldout": list(ANIMALS[64:])}


def scenes() -> dict[str, list[str]]:
    """Each subject in four places: 80 and 20."""

    def prompts(numbers: range) -> list[str]:
        rows = [(SUBJECTS[i], PLACES[(3 * i + 2 * k) % 10], STYLES[(i + k) % 6]) for i in numbers for k in range(4)]
        return [f"{subject} {place}, {style}" for subject, place, style in rows]

    return {"train": prompts(range(20)), "heldout": prompts(range(20, 25))}


def ocr() -> dict[str, list[str]]:
    """24 texts in four settings each, and 16 other texts in one."""

    def prompt(text: int, k: int) -> str:
        return f'{SETTINGS[(text + 5 * k) % 12]} "{TEXTS[text]}"'

    return {
        "train": [prompt(text, k) for text in range(24) for k in range(4)],
        "heldout": [prompt(text, 0) for text in range(24, 40)],
    }


def geneval() -> dict[str, list[Row]]:
    """Six tasks, 16 and 4 prompts of each."""
    rows = {tag: [_row(tag, *task(i)) for i in range(20)] for tag, task in TASKS.items()}
    return {
        "train": [row for found in rows.values() for row in found[:16]],
        "heldout": [row for found in rows.values() for row in found[16:]],
    }


def _row(tag: str, prompt: str, include: list[Row]) -> Row:
    return {"prompt": f"a photo of {prompt}", "tag": tag, "class": tag, "include": include}


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _two(i: int) -> tuple[str, str]:
    """Two different objects; other ones for each i below 80."""
    return OBJECTS[i % 16], OBJECTS[(i + 3 + 2 * (i // 16)) % 16]


def _single(i: int) -> tuple[str, list[Row]]:
    name = (*OBJECTS, "train", "pizza", "vase", "laptop")[i]
    return _a(name), [{"class": name, "count": 1}]


def _pair(i: int) -> tuple[str, list[Row]]:
    first, second = _two(i)
    return f"{_a(first)} and {_a(second)}", [{"class": first, "count": 1}, {"class": second, "count": 1}]


def _counting(i: int) -> tuple[str, list[Row]]:
    name, number = OBJECTS[i % 16], 2 + (i + i // 16) % 3
    plural = {"bench": "benches"}.get(name, f"{name}s")
    return f"{NUMBERS[number]} {plural}", [{"class": name, "count": number}]


def _coloured(i: int) -> tuple[str, list[Row]]:
    name, colour = OBJECTS[i % 16], COLOURS[(3 * i + i // 16) % 10]
    return _a(f"{colour} {name}"), [{"class": name, "count": 1, "color": colour}]


def _placed(i: int) -> tuple[str, list[Row]]:
    there, here = _two(i)
    relation = RELATIONS[i % 4]
    include = [{"class": there, "count": 1}, {"class": here, "count": 1, "position": [relation, 0]}]
    return f"{_a(here)} {relation} {_a(there)}", include


def _both_coloured(i: int) -> tuple[str, list[Row]]:
    first, second = _two(i)
    one, other = COLOURS[i % 10], COLOURS[(i + 4) % 10]
    include = [{"class": first, "count": 1, "color": one}, {"class": second, "count": 1, "color": other}]
    return f"{_a(f'{one} {first}')} and {_a(f'{other} {second}')}", include


TASKS: dict[str, Callable[[int], tuple[str, list[Row]]]] = {
    "single_object": _single,
    "two_object": _pair,
    "counting": _counting,
    "colors": _coloured,
    "position": _placed,
    "color_attr": _both_coloured,
}
MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "animals": animals, "scenes": scenes, "ocr": ocr, "geneval": geneval,
}  # fmt: skip


def contents() -> dict[Path, str]:
    """File -> its text."""
    found = {}
    for name, maker in MAKERS.items():
        made = maker()
        for split in SPLITS:
            lines = [row if isinstance(row, str) else json.dumps(row) for row in made[split]]
            found[set_path(name, split)] = "\n".join(lines) + "\n"
    return found


if __name__ == "__main__":
    for path, text in contents().items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {len(text.splitlines())} prompts")
