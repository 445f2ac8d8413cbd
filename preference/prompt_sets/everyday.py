"""Short everyday requests in five classes, for models of a hundred million parameters and two cores.

    python -m preference.prompt_sets.everyday configs/preference/smollm2

writes `everyday_train.jsonl` and `everyday_heldout.jsonl`: a prompt and its class a row. Of each class every fifth
thing and the last one are held out, so no thing is in both files. A class has one way of asking; what is held out is
the thing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

FORMS: Mapping[str, str] = {
    "how_to": "How do I {}?",
    "tip": "Give me one tip for {}.",
    "message": "Write a short message to {}.",
    "explain": "In one or two sentences, what is {}?",
    "idea": "Suggest {}.",
}
"""Class -> way of asking."""
THINGS: Mapping[str, str] = {
    "how_to": """
        boil an egg; clean a window; water a cactus; fold a shirt; sharpen a pencil; tie a bow; wash a woollen
        jumper; peel garlic quickly; store fresh bread; remove a coffee stain; pack a small suitcase; fix a
        squeaky door; choose a ripe melon; cook plain rice; plant a tulip bulb; wrap a round present; calm a
        barking dog; brush a cat; read a bus timetable; keep a cut apple from going brown; make tea without a
        kettle; oil a bicycle chain; measure a room; hang a picture straight; start a campfire; catch a spider
        gently; mend a torn page; save water at home; wake up on time; say no politely; ask for help at work;
        remember a name; learn a poem by heart; draw a simple tree; count to ten in Spanish; make a paper boat;
        greet a new neighbour; thank a teacher; split a bill with friends; find north without a compass; freeze
        herbs; polish old shoes
    """,
    "tip": """
        sleeping well; running a first mile; writing a diary; saving money; growing tomatoes; learning the
        guitar; speaking in public; cooking for one; staying warm in winter; travelling by train; making new
        friends; studying for an exam; taking better photos; keeping a desk tidy; drinking more water; walking a
        puppy; painting a wall; reading more books; baking bread; working from home; cleaning the kitchen;
        swimming longer; riding a bike in town; choosing a gift; keeping plants alive; hiking with children;
        packing lunch; remembering birthdays; moving house; playing chess; calming down before a test; giving
        honest feedback; listening to a friend; getting up early; folding laundry; buying second-hand clothes;
        learning new words; making a cup of coffee; stretching after sport; planning a weekend; sharing a flat;
        leaving work on time
    """,
    "message": """
        a friend who passed an exam; a neighbour who fed my cat; my sister on her birthday; a colleague who is
        ill; my landlord about a dripping tap; a teacher who helped me; my brother before his first race; a
        friend I have not seen for a year; my grandmother who likes flowers; a team that finished a project; a
        guest who left an umbrella; a bakery that makes great cakes; my boss to ask for a day off; a friend
        whose dog died; the new family next door; a cousin who had a baby; a singer after a concert; a librarian
        who found a rare book; my partner to say sorry for being late; a friend who moved abroad; a student who
        feels nervous; a driver who returned my phone; my aunt who sent a scarf; a coach after a lost game; a
        friend to invite her to dinner; a neighbour about loud music; my uncle who fixed my bike; a class on the
        last day of school; a friend who starts a new job; a nurse who was kind; my flatmate about the dishes; a
        volunteer who cleaned the park; a friend who gave me a book; a customer whose order is late; my parents
        from a holiday; a friend who is afraid of flying; a child who lost a tooth; a gardener who planted
        roses; a friend to cancel a meeting; a host after a lovely evening; a colleague who retires; a friend
        who wrote a song
    """,
    "explain": """
        a rainbow; a shadow; the moon; a recipe; a budget; a magnet; a vitamin; a compass; a thunderstorm; a
        library; a password; a bridge; a volcano; a metaphor; a harbour; an echo; a passport; a seed; a hobby; a
        deadline; a glacier; an orchestra; a market; an insurance; a thermometer; a habit; a desert; a
        lighthouse; a proverb; an engine; a calendar; a river; a vote; a spice; a museum; an allergy; a fossil;
        a joke; a tide; a comet; a promise; a neighbourhood
    """,
    "idea": """
        a quick breakfast; a name for a grey kitten; a rainy-day game; a gift for a gardener; a book for a long
        flight; a healthy snack; a topic for a short talk; a walk for a sunny morning; a song for a party; a
        soup for a cold day; a colour for a small kitchen; a costume made from paper; a way to say goodbye; a
        hobby for winter evenings; a plant for a dark corner; a picnic menu; a title for a story about a lost
        key; a warm-up before running; a present for a teacher; a place to read in peace; a simple dessert; a
        card game for two; a name for a boat; an evening without screens; a question to start a conversation; a
        breakfast for a birthday; a drink without sugar; a trip for a weekend; a first sentence for a letter; a
        film for a family; a salad with apples; a slogan for a clean park; a toy for a young dog; a use for old
        jars; a quiet game for a train; a sport for beginners; a name for a small cafe; a dish with potatoes; a
        thing to learn this month; a decoration for a table; a treat for a hard-working team; a plan for a lazy
        Sunday
    """,
}
"""Class -> what is asked about."""


def things(group: str) -> list[str]:
    """What is asked about in a class, in order."""
    return [" ".join(thing.split()) for thing in THINGS[group].split(";")]


def rows(split: str) -> Iterator[dict[str, str]]:
    """Prompts of a split, the classes in turn.

    Args:
        split: `train` or `heldout`.
    """
    chosen = {group: _part(things(group), heldout=split == "heldout") for group in FORMS}
    for number in range(max(map(len, chosen.values()))):
        for group, found in chosen.items():
            if number < len(found):
                yield {"prompt": FORMS[group].format(found[number]), "class": group}


def _part(found: Sequence[str], *, heldout: bool) -> list[str]:
    return [thing for number, thing in enumerate(found) if (number % 5 == 3 or number == 41) is heldout]


def write(folder: Path) -> None:
    """Both files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "heldout"):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(split))
        (folder / f"everyday_{split}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
