"""Text from elsewhere as terminals and logs may show it: nothing in it moves the cursor, breaks a line or turns it."""

import re

_UNPRINTABLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1: among them ESC, CSI and the next line, U+0085
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text: "a b" may look like "b a"
    "\ud800-\udfff"  # halves of characters
)
_SEARCHED = re.compile(f"[{_UNPRINTABLE}]")
_IN_A_LINE = re.compile(f"[\t\n{_UNPRINTABLE}]")


def escaped(text: str) -> str:
    r"""The text with every such character as \u and four digits, as JSON has it; tabs and line feeds stay."""
    return _SEARCHED.sub(_code, text)


def escaped_line(text: str) -> str:
    """The same without tabs and line feeds: one line, whatever it holds."""
    return _IN_A_LINE.sub(_code, text)


def unprintable(text: str, *, lines: bool = False) -> str | None:
    r"""The first such character in the text, as U+ and its number; tabs and line feeds count unless it has `lines`."""
    found = (_SEARCHED if lines else _IN_A_LINE).search(text)
    return None if found is None else f"U+{ord(found[0]):04X}"


def _code(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
