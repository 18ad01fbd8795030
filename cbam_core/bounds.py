"""Bounds of what a spec may hold: a list or a number without an end is a way to fill the memory of others."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

MOST_EPOCHS = 100_000
MOST_STEPS = 10**9

Reduction = Annotated[int, Field(ge=1, le=65_536)]
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]


def at_most(count: int) -> BeforeValidator:
    """Refuse a longer list as a whole: without it, pydantic complains of each of its items first."""

    def check(value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) > count:
            raise ValueError(f"at most {count} items; got {len(value)}")
        return value

    return BeforeValidator(check)
