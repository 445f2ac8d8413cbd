"""Unit vectors in objective space: from angles and names, at random, and as text in a prompt.

Directional Preference Alignment (Wang et al., arXiv:2402.18571): a preference is a direction v with ||v||_2 = 1, the
score is v . r, and one policy learns to answer for every v that it reads in its prompt. Components may be negative:
"more helpful, less verbose" is v = (0.8, -0.6).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

PERCENT = 100


def unit(components: Float[Tensor, "k"] | Float[Tensor, "n k"]) -> Float[Tensor, "k"] | Float[Tensor, "n k"]:
    """Each vector divided by its length.

    Raises:
        ValueError: a vector of length 0, or one with a component that is not finite.
    """
    if not components.isfinite().all():
        raise ValueError(f"a direction must have finite components, found {components.tolist()}.")
    length = components.norm(dim=-1, keepdim=True)
    if (length == 0).any():
        raise ValueError("a direction needs a component other than 0: say what to prefer.")
    return components / length


def from_angle(degrees: float) -> Float[Tensor, "2"]:
    """(cos a, sin a) in float64: the first objective at 0 degrees, the second at 90; -15 is a little less of it."""
    radians = math.radians(degrees)
    return torch.tensor([math.cos(radians), math.sin(radians)], dtype=torch.float64)


def to_angle(direction: Float[Tensor, "2"]) -> float:
    """Inverse of `from_angle`, in (-180, 180]."""
    return math.degrees(math.atan2(float(direction[1]), float(direction[0])))


def random_angles(
    count: int, generator: torch.Generator, *, low: float = -45.0, high: float = 0.0, exact_zero: float = 0.0
) -> Float[Tensor, "count 2"]:
    """Directions of two objectives with uniform angles.

    Args:
        count: how many.
        generator: of the draws.
        low: smallest angle in degrees. The default cone is a guess from the paper's figures (ten points between -45
            and 0); the paper's own training range was not found.
        high: largest angle.
        exact_zero: share that gets exactly 0 degrees, in [0, 1].
    """
    draws = torch.rand(2, count, generator=generator, dtype=torch.float64)
    angles = torch.deg2rad(low + (high - low) * draws[0])
    angles = torch.where(draws[1] < exact_zero, 0.0, angles)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def random_directions(
    count: int,
    main: Float[Tensor, "k"],
    generator: torch.Generator,
    *,
    cap_degrees: float = 45.0,
    non_negative: Sequence[int] = (),
) -> Float[Tensor, "count k"]:
    """Directions around a main one, uniform on the spherical cap (ours, for more than two objectives).

    Args:
        count: how many.
        main: middle of the cap, in any length.
        generator: of the draws.
        cap_degrees: largest angle to `main`, in (0, 180].
        non_negative: objectives whose sign is flipped where negative.

    Raises:
        ValueError: the cap is so small that no draw of 10,000 x count falls into it.
    """
    centre, found, drawn = unit(main.double()), [], 0
    while sum(map(len, found)) < count:
        if drawn >= 10_000 * max(count, 1):
            raise ValueError(
                f"no direction within {cap_degrees} degrees of {centre.tolist()} was drawn: raise `cap_degrees`."
            )
        draws = unit(torch.randn(1024, len(centre), generator=generator, dtype=torch.float64))
        for k in non_negative:
            draws[:, k] = draws[:, k].abs()
        drawn += len(draws)
        found.append(draws[draws @ centre >= math.cos(math.radians(cap_degrees))])
    return torch.cat(found)[:count] if found else torch.zeros(0, len(centre), dtype=torch.float64)


def to_integers(direction: Float[Tensor, "k"]) -> list[int]:
    """round(100 v), halves to even, as a prompt shows it."""
    return [round(PERCENT * value) for value in direction.tolist()]


def from_integers(numbers: Sequence[int]) -> Float[Tensor, "k"]:
    """The direction that the printed integers mean, length 1 again. Score with this one: text and score then agree."""
    return unit(torch.tensor(list(numbers), dtype=torch.float64))


def to_text(template: str, names: Sequence[str], direction: Float[Tensor, "k"]) -> str:
    """The control text of a prompt.

    Args:
        template: with one slot per name, such as
            `Answer the user well. Aim for the best value of {helpfulness} x helpfulness + {verbosity} x verbosity.`
            A released model's own template is part of that model.
        names: of the components, in order.
        direction: unit vector; negative zero prints as 0.

    Raises:
        ValueError: a name without a slot.
    """
    missing = [name for name in names if f"{{{name}}}" not in template]
    if missing:
        raise ValueError(
            f"the template has no slot for {', '.join(missing)}: write {{{missing[0]}}} where its number goes."
        )
    numbers = to_integers(direction)
    for name, number in zip(names, numbers, strict=True):
        template = template.replace(f"{{{name}}}", str(number))
    return template


def from_text(text: str, template: str, names: Sequence[str]) -> dict[str, int]:
    """The integers of a control text: inverse of `to_text`.

    Raises:
        ValueError: the text does not follow the template.
    """
    pattern = re.escape(template)
    for name in names:
        pattern = pattern.replace(re.escape(f"{{{name}}}"), rf"(?P<{name}>-?\d+)", 1)
    match = re.fullmatch(pattern, text)
    if match is None:
        raise ValueError(f"expected a text of the form {template!r}, found {text!r}.")
    return {name: int(match[name]) for name in names}


def from_names(components: Mapping[str, float], names: Sequence[str]) -> Float[Tensor, "k"]:
    """Unit vector over `names` from `{"helpfulness": 0.8, "verbosity": -0.6}`; 0 where a name is not mentioned."""
    unknown = [name for name in components if name not in names]
    if unknown:
        raise ValueError(f"the direction names {', '.join(unknown)}, but the rewards are {', '.join(names)}.")
    return unit(torch.tensor([float(components.get(name, 0.0)) for name in names], dtype=torch.float64))


def angle_between(a: Float[Tensor, "k"], b: Float[Tensor, "k"]) -> float:
    """Angle in degrees, 0 to 180. Beyond the trained cone a policy has never seen such a control."""
    cosine = float(unit(a.double()) @ unit(b.double()))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def violated_pairs(directions: Float[Tensor, "n k"], rewards: Float[Tensor, "n k"]) -> float:
    """Share of pairs of directions for which control goes the wrong way; 0 for exact maximisers.

        violated:  (v - v') . (r(v) - r(v')) < 0

    Args:
        directions: what was asked for.
        rewards: mean reward vector that came out.
    """
    v = directions.unsqueeze(0) - directions.unsqueeze(1)
    r = rewards.unsqueeze(0) - rewards.unsqueeze(1)
    pairs = torch.triu(torch.ones(v.shape[:2], dtype=torch.bool), diagonal=1)
    return float(((v * r).sum(dim=2) < 0)[pairs].double().mean()) if pairs.any() else 0.0
