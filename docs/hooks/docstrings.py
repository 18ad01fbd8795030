"""Makes Markdown of the docstrings of this project, which are laid out to be read in a terminal (for Griffe)."""

import re
from typing import Any

import griffe

_CODE_OR_MARKUP = re.compile(r"`[^`]*`|[*<]")
_TWO_COLUMNS = re.compile(r"(?P<name>[a-z_]+ {2,})\S")
_ALIGNED = re.compile(r"\S {2,}\S")


class Terminal(griffe.Extension):
    """Rewrites the docstring of every object that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """The docstring with `*` and `<` as themselves, its tables of parameters as lists, aligned lines as lines."""
    paragraphs = docstring.split("\n\n")
    return "\n\n".join(_escape(_list(paragraph) or _lines(paragraph)) for paragraph in paragraphs)


def _list(paragraph: str) -> str | None:
    """A paragraph in two columns, names and meanings, as a list; None where it is not one."""
    lines = paragraph.splitlines()
    first = next(filter(None, map(_TWO_COLUMNS.match, lines)), None)
    if first is None:
        return None
    width = len(first["name"])
    rows = [(line[:width].strip(), line[width:]) for line in lines]
    if not all(name.isidentifier() or not name for name, _ in rows):
        return None
    return "\n".join(f"- `{name}`: {meaning}" if name else f"  {meaning}" for name, meaning in rows)


def _lines(paragraph: str) -> str:
    """A paragraph with columns in it keeps its line breaks; others flow."""
    return paragraph.replace("\n", "  \n") if _ALIGNED.search(paragraph) else paragraph


def _escape(text: str) -> str:
    return _CODE_OR_MARKUP.sub(lambda match: match[0] if match[0].startswith("`") else f"\\{match[0]}", text)
