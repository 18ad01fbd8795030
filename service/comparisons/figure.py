"""The forest plot of a comparison as SVG: a row for each pair, a dot for each seed, intervals, the margin, the cost.

Readable without a caption and in black and white, as kinds of lines differ in width and dashes, never in colour alone.
It brings its own background, light or dark as the reader prefers, and imports the schemas alone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from service.comparisons.formatting import NONE, count, ends, margin, ratio, seeds_so_far, speed
from service.comparisons.svg import element, lines, plain, shortened, text, width_of, wrapped
from service.comparisons.table import difference
from service.schemas.comparison_results import IntervalView, PairResultView, ResultView, VariantResultView

WIDTH, PADDING, ROW, TOP = 1040.0, 16.0, 60.0, 118.0
LEAST_LABEL, MOST_LABEL = 90.0, 190.0
DOT, STACK = 3.0, 17.0  # radius; height that dots of one place may take
SIZE, SMALL = 13.0, 11.5
COLUMNS = (("Δ [95 %], points", 150.0), ("parameters", 76.0), ("images/s", 106.0), ("verdict", 134.0))
"""To the right of the plot, with their widths."""
CELLS = WIDTH - PADDING - sum(width for _, width in COLUMNS)  # where they start
STYLE = """
.cbam{--ink:#16191d;--soft:#58606b;--paper:#fff;--band:#d5d9de;--rule:#c3c8ce;font-family:system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media (prefers-color-scheme:dark){.cbam{--ink:#e9ecef;--soft:#a5aeb8;--paper:#14171a;--band:#363c43;--rule:#454c54}}
.cbam .paper{fill:var(--paper)}.cbam text{fill:var(--ink);unicode-bidi:isolate}.cbam .soft{fill:var(--soft)}
.cbam .band{fill:var(--band)}.cbam .rule{stroke:var(--rule)}.cbam line,.cbam path{stroke:var(--ink);fill:none}
.cbam .dot{fill:var(--paper);stroke:var(--soft)}.cbam .mean{fill:var(--ink);stroke:var(--paper)}
.cbam .dashed{stroke-dasharray:5 4}.cbam .tip{fill:var(--ink);stroke:none}
"""


@dataclass(frozen=True)
class Scale:
    """Where a difference stands on the plot."""

    low: float
    high: float
    left: float
    right: float

    def __call__(self, value: float) -> float:
        """Return x; what is off the plot stands at its edge."""
        inside = min(max(value, self.low), self.high)
        return self.left + (self.right - self.left) * (inside - self.low) / (self.high - self.low)

    def holds(self, value: float | None) -> bool:
        """Return whether a value is on the plot."""
        return value is not None and self.low <= value <= self.high

    def ticks(self) -> list[float]:
        """Return four to nine round differences."""
        span = self.high - self.low
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (5, 2, 1) if span / (step * factor) >= 4)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * index for index in range(first, last + 1)]


def figure(view: ResultView) -> str:
    """Return the forest plot as a whole SVG document, which may be embedded in HTML as it is."""
    labels = [_label(pair, view) for pair in view.pairs]
    label = min(MOST_LABEL, max(LEAST_LABEL, *(width_of(words, SIZE, bold=True) for words in labels)))
    scale = _scale(view, PADDING + label + 12)
    bottom, is_drawn = TOP + ROW * len(view.pairs), any(pair.differences for pair in view.pairs)
    parts = [
        element("rect", class_="paper", width="100%", height="100%"),
        *_heading(view),
        *_columns(scale if is_drawn else None, is_probed=_is_probed(view)),
        *(_field(view, scale, bottom) if is_drawn else []),
        *(_row(pair, view, scale, label, TOP + ROW * (index + 0.5)) for index, pair in enumerate(view.pairs)),
        *(_axis(view, scale, bottom) if is_drawn else []),
        *_legend(view, bottom + 70),
    ]
    return _document(view, "".join(parts), bottom + (90 if is_drawn else 10))


def _document(view: ResultView, content: str, height: float) -> str:
    name = f"comparison-{view.study_id}"
    return element(
        "svg",
        element("title", plain(f"{view.name}: differences in {view.metric} from {view.control}"), id=f"{name}-title")
        + element("desc", plain(" ".join([*_state(view), *view.summary])), id=f"{name}-desc")
        + element("style", STYLE)
        + content,
        xmlns="http://www.w3.org/2000/svg",
        class_="cbam",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        width=WIDTH,
        height=height,
    )


def _heading(view: ResultView) -> list[str]:
    wide = WIDTH - 2 * PADDING
    state = "; ".join(_state(view))
    return [
        text(shortened(view.name, wide, 18, bold=True), PADDING, 32, font_size=18, font_weight="bold"),
        text(shortened(state, wide, SIZE), PADDING, 56, font_size=SIZE, class_="soft"),
    ]


def _state(view: ResultView) -> list[str]:
    """Return what kind of result this is, and how far it is."""
    images = "" if view.images is None else f" on {view.images:,} images"
    told = [f"Difference in {view.metric}{images}, {seeds_so_far(view)}"]
    if view.not_comparable:
        return [*told, f"not comparable: {', '.join(field.field for field in view.not_comparable)}"]
    if view.hidden:
        return [*told, "running: dots and means are hidden until the last seed"]
    if view.running:
        return [*told, "running: all is provisional"]
    words = {"added": "seeds were added after results were seen", "stopped": "it ended before its last seed"}
    return [*told, words[view.seeds.rule]] if view.seeds.rule in words else told


def _columns(scale: Scale | None, *, is_probed: bool) -> list[str]:
    y, x = TOP - 22, CELLS
    told = []
    if scale is not None:
        told.append(text("worse ←", scale.left, y, font_size=SMALL, class_="soft"))
        told.append(text("→ better", scale.right, y, font_size=SMALL, class_="soft", text_anchor="end"))
    for name, width in COLUMNS:
        words = "images/s [95 %]" if name == "images/s" and is_probed else name
        told.append(text(words, x, y, font_size=SMALL, class_="soft"))
        x += width
    return [*told, element("line", class_="rule", x1=PADDING, x2=WIDTH - PADDING, y1=TOP - 12, y2=TOP - 12)]


def _field(view: ResultView, scale: Scale, bottom: float) -> list[str]:
    """Return what lies behind the rows: the band of the margin, and the line of no difference."""
    parts = []
    if view.margin is not None:
        left, right = scale(-view.margin), scale(view.margin)
        parts.append(element("rect", class_="band", x=left, y=TOP - 6, width=right - left, height=bottom - TOP + 6))
    zero = scale(0.0)
    return [*parts, element("line", x1=zero, x2=zero, y1=TOP - 6, y2=bottom, stroke_width=1.2)]


def _row(pair: PairResultView, view: ResultView, scale: Scale, label: float, y: float) -> str:
    rule = element("line", class_="rule", x1=PADDING, x2=WIDTH - PADDING, y1=y + ROW / 2, y2=y + ROW / 2)
    words = wrapped(_label(pair, view), label, SIZE, 3, bold=True)
    name = lines(words, PADDING, y, height=16, font_size=SIZE, font_weight="bold")
    return rule + name + _evidence(pair, view, scale, y) + _cells(pair, view, CELLS, y)


def _label(pair: PairResultView, view: ResultView) -> str:
    """Return the variant, and what it is compared with where that is not the control for all."""
    return pair.first if view.pairs_judged == "control" else f"{pair.first} − {pair.second}"


def _evidence(pair: PairResultView, view: ResultView, scale: Scale, y: float) -> str:
    """Return dots and intervals; of runs that are not comparable dots alone, as no interval of them holds."""
    if view.hidden or pair.difference is None:
        words = f"{pair.n} of {view.seeds.planned} seeds; hidden until the last" if view.hidden else "no seeds yet"
        return text(words, (scale.left + scale.right) / 2, y + 4, font_size=SMALL, class_="soft", text_anchor="middle")
    parts = [_dots(pair.differences, scale, y + 5)]
    center = y - 11
    if pair.verdict != "not comparable":
        parts.append(_line(pair.simultaneous, scale, center, width=1.4, caps=4))
        parts.append(_line(pair.anytime, scale, center, width=1.4, caps=4, class_="dashed"))
        parts.append(_line(pair.interval, scale, center, width=5))
    if scale.holds(pair.difference):
        x = scale(pair.difference)
        shape = f"M{x - 5:.2f} {center:.2f}l5 -6l5 6l-5 6Z"
        parts.append(element("path", class_="mean", d=shape, stroke_width=1))
    return "".join(parts)


def _line(
    told: IntervalView | None, scale: Scale, y: float, *, width: float, caps: float = 0, class_: str | None = None
) -> str:
    """Return an interval; an end that is off the plot is an arrow."""
    if told is None:
        return ""
    low, high = (scale.low if told.low is None else told.low), (scale.high if told.high is None else told.high)
    parts = [element("line", class_=class_, x1=scale(low), x2=scale(high), y1=y, y2=y, stroke_width=width)]
    for end, x, out in ((told.low, scale(low), -1), (told.high, scale(high), 1)):
        if not scale.holds(end):
            parts.append(element("path", class_="tip", d=f"M{x + 7 * out:.2f} {y:.2f}l{-7 * out} -4.5v9z"))
        elif caps:
            parts.append(element("line", x1=x, x2=x, y1=y - caps, y2=y + caps, stroke_width=width))
    return "".join(parts)


def _dots(differences: Iterable[float], scale: Scale, y: float) -> str:
    """Return a dot for each seed, those of one place piled downwards, closer where they are many."""
    piles: dict[int, list[float]] = {}
    for value in differences:
        x = scale(value)
        piles.setdefault(round(x / (2 * DOT)), []).append(x)
    parts = []
    for pile in piles.values():
        step = min(2 * DOT, STACK / max(1, len(pile) - 1))
        parts += [
            element("circle", class_="dot", cx=x, cy=y + place * step, r=DOT) for place, x in enumerate(sorted(pile))
        ]
    return "".join(parts)


def _cells(pair: PairResultView, view: ResultView, x: float, y: float) -> str:
    first = next(variant for variant in view.variants if variant.name == pair.first)
    second = next(variant for variant in view.variants if variant.name == pair.second)
    words = (
        [difference(pair, view)] if not view.hidden else ["hidden"],
        _of(count(first.parameters), count(second.parameters)),
        _speed(pair, view, first, second),
        [pair.verdict, *([f"({pair.scope})"] if pair.scope else [])],
    )
    told = []
    for (_, width), rows in zip(COLUMNS, words, strict=True):
        cut = [line for row in rows for line in wrapped(row, width - 10, SMALL, 3)]
        told.append(lines(cut, x, y, height=14.5, font_size=SMALL))
        x += width
    return "".join(told)


def _speed(pair: PairResultView, view: ResultView, first: VariantResultView, second: VariantResultView) -> list[str]:
    """Return what a probe has measured; where there is none at all, the images/s that were seen in training."""
    if not _is_probed(view):
        return _of(speed(first.images_per_second), speed(second.images_per_second))
    if pair.throughput is None:
        return ["not measured"]
    memory = [] if pair.memory_ratio is None else [f"memory {ratio(pair.memory_ratio)}"]
    return [ratio(pair.throughput.value), ends(pair.throughput), *memory]


def _is_probed(view: ResultView) -> bool:
    return any(pair.throughput is not None for pair in view.pairs)


def _of(first: str, second: str) -> list[str]:
    """Return a cost beside that of the other variant."""
    return [first] if NONE in (first, second) else [first, f"of {second}"]


def _axis(view: ResultView, scale: Scale, bottom: float) -> list[str]:
    ticks = scale.ticks()
    digits = max(0, -math.floor(math.log10(100 * (ticks[1] - ticks[0])) + 1e-9)) if len(ticks) > 1 else 1
    parts = [element("line", x1=scale.left, x2=scale.right, y1=bottom, y2=bottom)]
    for tick in ticks:
        words = f"{100 * tick + 0.0:.{digits}f}".replace("-", "−")
        parts.append(element("line", x1=scale(tick), x2=scale(tick), y1=bottom, y2=bottom + 5))
        parts.append(text(words, scale(tick), bottom + 19, font_size=SMALL, text_anchor="middle"))
    words = "percentage points" if view.pairs_judged == "all" else f"percentage points more than {view.control}"
    middle = (scale.left + scale.right) / 2
    return [
        *parts,
        text(words, middle, bottom + 37, font_size=SMALL, class_="soft", text_anchor="middle"),
    ]


def _legend(view: ResultView, y: float) -> list[str]:
    """Return what each mark that is drawn means."""
    shown: list[tuple[str, str]] = []
    together = f" for all {view.tests} pairs together" if view.tests > 1 else ""
    tested = [pair for pair in view.pairs if pair.verdict != "not comparable"]
    if any(pair.differences for pair in view.pairs):
        shown += [("dot", "one seed"), ("mean", "mean")]
    if any(pair.interval for pair in tested):
        shown += [("thick", "95 % interval"), *([("thin", f"95 %{together}")] if together else [])]
    if any(pair.anytime for pair in tested):
        shown.append(("dashed", f"95 % at every look{together}"))
    if view.margin is not None:
        shown.append(("band", f"within the margin, {margin(view)}"))
    parts, x = [], PADDING
    for mark, words in shown:
        parts += [_mark(mark, x, y - 4), text(words, x + 32, y, font_size=SMALL)]
        x += 32 + width_of(words, SMALL) + 16
    return parts


def _mark(kind: str, x: float, y: float) -> str:
    match kind:
        case "dot":
            return element("circle", class_="dot", cx=x + 18, cy=y, r=DOT)
        case "mean":
            return element("path", class_="mean", d=f"M{x + 12:.2f} {y:.2f}l5 -6l5 6l-5 6Z", stroke_width=1)
        case "band":
            return element("rect", class_="band", x=x + 4, y=y - 7, width=22.0, height=14.0)
        case "dashed":
            return element("line", class_="dashed", x1=x + 2, x2=x + 26, y1=y, y2=y, stroke_width=1.4)
    return element("line", x1=x + 4, x2=x + 26, y1=y, y2=y, stroke_width=5 if kind == "thick" else 1.4)


def _scale(view: ResultView, left: float) -> Scale:
    """Return a scale that holds 0, all dots and 95 % intervals, and others as far as they leave these readable."""
    values = [0.0, *(value for pair in view.pairs for value in pair.differences)]
    values += _ends(pair.interval for pair in view.pairs)
    low, high = min(values), max(values)
    reach = max(high - low, 4 * (view.resolution or 0.005))
    wider = _ends(told for pair in view.pairs for told in (pair.simultaneous, pair.anytime))
    if view.margin is not None:
        wider += [-1.1 * view.margin, 1.1 * view.margin]
    low = min([low, *(max(value, low - reach) for value in wider)])
    high = max([high, *(min(value, high + reach) for value in wider)])
    edge = 0.06 * max(high - low, reach)
    return Scale(low - edge, high + edge, left, CELLS - 20)


def _ends(intervals: Iterable[IntervalView | None]) -> list[float]:
    return [end for told in intervals if told is not None for end in (told.low, told.high) if end is not None]
