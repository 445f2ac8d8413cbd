"""Ranges of settings. They are part of a field's type, so that the loader, the schema and the reference page agree."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

PositiveInt = Annotated[int, Field(gt=0)]
"""1, 2, ..."""
Count = Annotated[int, Field(ge=0)]
"""0, 1, 2, ..."""
PositiveFloat = Annotated[float, Field(gt=0)]
"""Larger than 0."""
NonNegativeFloat = Annotated[float, Field(ge=0)]
"""0 or larger."""
Share = Annotated[float, Field(ge=0, le=1)]
"""From 0 to 1, both included."""
Decay = Annotated[float, Field(ge=0, lt=1)]
"""From 0 (included) to 1 (excluded)."""
