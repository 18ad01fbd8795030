"""Arguments of attention modules: a constructor refuses what its options refuse, and says what there is to choose."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from cbam_core.attention.options import Options
from cbam_core.suggestions import did_you_mean

_QUOTED = re.compile(r"'([^']*)'")


def check_arguments(options: type[Options], channels: int, **arguments: Any) -> None:
    """Check the arguments of a module for so many channels as the fields of its spec are checked.

    Raises ValueError with every argument that is wrong, what it may be, and the choice that may have been meant.
    """
    if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
        raise ValueError(f"channels must be a whole number of at least 1; got {channels!r}")
    try:
        options(**arguments)
    except ValidationError as error:
        raise ValueError("; ".join(_problem(one) for one in error.errors(include_url=False))) from None


def check_choice(name: str, word: str, known: Iterable[str]) -> None:
    """Raise ValueError where `word`, the argument `name`, is none of `known`."""
    choices = [*known]
    if word not in choices:
        raise ValueError(_refusal(name, word, choices))


def check_choices(name: str, words: Sequence[str], known: Iterable[str]) -> None:
    """Raise ValueError where `words`, the argument `name`, are none at all, no list, not in `known`, or doubled."""
    choices = [*known]
    if isinstance(words, str) or not words:
        raise ValueError(f"{name} must be a list of at least one of {', '.join(choices)}; got {words!r}")
    for word in words:
        check_choice(f"each of {name}", word, choices)
    if len(set(words)) != len(words):
        raise ValueError(f"{name}: each at most once; got {', '.join(words)}")


def _problem(error: Any) -> str:
    """One line for one error of pydantic's."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "literal_error":
        return _refusal(name, error["input"], _QUOTED.findall(error["ctx"]["expected"]))
    message: str = error["msg"]
    if error["type"] == "value_error":  # our own, which says what it got
        message = message.removeprefix("Value error, ")
        return message if not name or message.startswith(name) else f"{name}: {message}"
    return f"{name} {message.replace('Input should', 'must', 1)}; got {error['input']!r}"


def _refusal(name: str, word: object, choices: Sequence[str]) -> str:
    hint = did_you_mean(word, choices, most=1) if isinstance(word, str) else ""
    return f"{name} must be {' or '.join(filter(None, [', '.join(choices[:-1]), choices[-1]]))}; got {word!r}{hint}"
