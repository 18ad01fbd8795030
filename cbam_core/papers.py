"""Where attention modules and networks were published."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Paper:
    """Where something was published."""

    title: str
    authors: str
    year: int
    url: str

    @classmethod
    def arxiv(cls, number: str, year: int, authors: str, title: str) -> Self:
        """A paper on arXiv, by its number there."""
        return cls(title, authors, year, f"https://arxiv.org/abs/{number}")
