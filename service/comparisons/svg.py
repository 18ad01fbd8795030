"""Elements of an SVG as text, with everything that users write escaped, and the width of text estimated."""

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NARROW, _WIDE = frozenset("ijlt.,:;|!'()[]-–f r"), frozenset("mwMW@%±→←")


def element(name: str, content: str = "", **attributes: object) -> str:
    """Return an element of ready content; attributes are escaped, `class_` is class and `font_size` font-size."""
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(_number(value))}"
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{told}>{content}</{name}>" if content else f"<{name}{told}/>"


def text(words: str, x: float, y: float, **attributes: object) -> str:
    """Return a line of text that starts, or with `text_anchor` is centred or ends, at x; y is its baseline."""
    return element("text", plain(words), x=x, y=y, **attributes)


def lines(rows: Sequence[str], x: float, y: float, *, height: float, **attributes: object) -> str:
    """Return lines of text around y, the middle of them all."""
    first = y - height * (len(rows) - 1) / 2 + 0.35 * height
    return "".join(text(row, x, first + place * height, **attributes) for place, row in enumerate(rows))


def plain(words: str) -> str:
    """Return text that an XML document may hold, escaped."""
    return escape(_NOT_IN_XML.sub("\ufffd", words))


def width_of(words: str, size: float, *, bold: bool = False) -> float:
    """Return about how wide a sans-serif text is, rather too much than too little."""
    units = 0.0
    for character in words:
        if character in _NARROW:
            units += 0.38
        elif character in _WIDE or ord(character) > 0x2E80:
            units += 1.0
        else:
            units += 0.7 if character.isupper() else 0.62
    return units * size * (1.12 if bold else 1.0)


def shortened(words: str, width: float, size: float, *, bold: bool = False) -> str:
    """Return the text, cut with an ellipsis where it is wider."""
    if width_of(words, size, bold=bold) <= width:
        return words
    while words and width_of(f"{words}…", size, bold=bold) > width:
        words = words[:-1]
    return f"{words.rstrip()}…"


def wrapped(words: str, width: float, size: float, most: int, *, bold: bool = False) -> list[str]:
    """Return the text in lines no wider than that, broken at spaces, or within a word that is wider than a line.

    What `most` lines cannot hold is cut.
    """
    rows = [""]
    for word in words.split():
        longer = f"{rows[-1]} {word}".strip()
        if not rows[-1] or width_of(longer, size, bold=bold) <= width:
            rows[-1] = longer
        else:
            rows.append(word)
        while len(rows) < most and (kept := _fitting(rows[-1], width, size, bold)) < len(rows[-1]):
            rows[-1:] = [rows[-1][:kept], rows[-1][kept:]]
    if len(rows) > most:
        rows[most - 1 :] = [" ".join(rows[most - 1 :])]
    return [shortened(row, width, size, bold=bold) for row in rows]


def _fitting(word: str, width: float, size: float, bold: bool) -> int:
    """Return how many characters of a word a line holds, at least one."""
    kept = len(word)
    while kept > 1 and width_of(word[:kept], size, bold=bold) > width:
        kept -= 1
    return kept


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else _NOT_IN_XML.sub("\ufffd", str(value))
