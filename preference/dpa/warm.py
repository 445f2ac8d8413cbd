"""The round before the first: answers that somebody has rated, each group under drawn directions.

    for a prompt x with several rated answers and v ~ P_v:   y* = argmax_i v . C r(x, y_i),   imitated with text(v)

So the policy has read control texts before it is sampled from for the first time. Ratings have units of their own; they
are brought to mean 0 and deviation 1 over the file.
"""

from __future__ import annotations

import torch

from preference.dpa.config import DpaRun
from preference.dpa.control import Control, draw
from preference.dpa.method import WARM
from preference.dpa.rounds import Answers
from preference.formats import as_chat, readable
from preference.ratings import RatedTexts


def rated_answers(config: DpaRun, control: Control, rated: RatedTexts) -> Answers:
    """The rated answers as a round has them: every group under each of its directions.

    Args:
        config: of the run: which directions, how many a prompt, the seed.
        control: puts directions into words.
        rated: of `read_rated`.
    """
    algorithm = config.algorithm
    each = algorithm.directions_per_prompt
    groups = max(rated.group_ids) + 1
    vectors = draw(algorithm.directions, control, groups * each, config.seed, WARM)
    rows = [as_chat(row) if config.data.plain_as_chat else row for row in rated.rows]
    wanted = [(place, group * each + j) for place, group in enumerate(rated.group_ids) for j in range(each)]
    return Answers(
        rows=[control.asked(rows[place], vectors[group]) for place, group in wanted],
        vectors=[vectors[group] for _, group in wanted],
        completions=[readable(rated.rows[place].responses[0]) for place, _ in wanted],
        rewards=torch.tensor([rated.values[place] for place, _ in wanted], dtype=torch.float64),
        group_ids=torch.tensor([group for _, group in wanted]),
    )
