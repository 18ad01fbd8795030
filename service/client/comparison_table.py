"""The result of a comparison as a table: of text for people, of numbers for pandas, as HTML for notebooks."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from cbam_core.printable import escaped_line
from service.errors import MissingExtra
from service.schemas.comparison_results import IntervalView, PairResultView, ResultView, VariantResultView

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = (
    *("variant", ">n", ">top-1 % ± sd", ">Δ points [95 %]", ">p", "W–T–L", ">new images [95 %]"),
    *(">parameters", ">MACs", ">memory", "verdict"),
)
"""A name that begins with > is of numbers, which stand to the right."""


def rows(result: ResultView) -> list[tuple[str, ...]]:
    """The cells under `COLUMNS`: the control, and a row for each difference. What is not known yet is empty."""
    return [tuple(escaped_line(cell) for cell in _row(result, *one)) for one in _variants_and_pairs(result)]


def shown_table(result: ResultView) -> tuple[list[str], list[list[str]]]:
    """Columns and rows without those columns that are empty in every row: early on, half of them are."""
    made = rows(result)
    used = [number for number in range(len(COLUMNS)) if any(row[number] for row in made)]
    return [COLUMNS[number] for number in used], [[row[number] for number in used] for row in made]


def records(result: ResultView) -> list[dict[str, Any]]:
    """The same as numbers: the control, and one for each difference. Accuracies and differences are fractions of 1."""
    return [_record(*one) for one in _variants_and_pairs(result)]


def as_frame(result: ResultView) -> "DataFrame":
    """The records as a DataFrame. Raises MissingExtra without pandas."""
    try:
        from pandas import DataFrame
    except ModuleNotFoundError as error:
        raise MissingExtra("a table as a DataFrame needs pandas: pip install pandas") from error
    return DataFrame(records(result))


def as_html(result: ResultView) -> str:
    """The table with the verdicts in words below it, as a piece of HTML."""
    columns, shown = shown_table(result)
    heads = "".join(f"<th>{escape(name.removeprefix('>'))}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in shown)
    said = "".join(f"<p>{escape(line)}</p>" for line in words(result))
    head = f"<p><b>{escape(result.name)}</b> {result.state}, {escape(result.metric)}</p>"
    return f"{head}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{said}"


def words(result: ResultView) -> Iterator[str]:
    """What differs where nothing can be compared, the verdicts, and what to know before believing them."""
    for field in result.not_comparable:
        runs = "; ".join(f"{value.value}: {value.runs} runs" for value in field.values)
        yield f"not comparable, {field.field}: {field.words}" + f" ({runs})" * bool(runs)
    yield from result.summary
    warnings = [*result.warnings, *(warning for pair in result.pairs for warning in pair.warnings)]
    yield from (f"note: {warning}" for warning in dict.fromkeys(warnings))


def difference(pair: PairResultView, result: ResultView) -> str:
    """The mean difference in points, and its 95 % interval; nothing where it is hidden or there is none."""
    if pair.difference is None:
        return ""
    return f"{points(pair.difference, result)} {_interval(told_interval(pair), result)}".rstrip()


def told_interval(pair: PairResultView) -> IntervalView | None:
    """The interval that may be told: while seeds run, and after some were added, the one that holds at every look."""
    return pair.anytime if pair.verdict == "running" else pair.interval or pair.anytime


def points(value: float, result: ResultView, *, sign: bool = True) -> str:
    """A fraction as percentage points, to a tenth, or to a hundredth where one image is less than 0.05 points."""
    digits = 2 if result.resolution is not None and result.resolution < 0.0005 else 1
    number = round(100 * value, digits) + 0.0  # no −0.0
    return f"{number:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _variants_and_pairs(result: ResultView) -> list[tuple[VariantResultView, PairResultView | None]]:
    """Every variant once at least: the control by itself, and the first one of each pair with it."""
    by_name = {variant.name: variant for variant in result.variants}
    paired = {pair.first for pair in result.pairs}
    alone: list[tuple[VariantResultView, PairResultView | None]] = [
        (variant, None) for variant in result.variants if variant.name not in paired
    ]
    return alone + [(by_name[pair.first], pair) for pair in result.pairs if pair.first in by_name]


def _row(result: ResultView, variant: VariantResultView, pair: PairResultView | None) -> Iterator[str]:
    against = pair is not None and pair.second != result.control
    yield f"{variant.name} − {pair.second}" if pair is not None and against else variant.name
    yield str(pair.n if pair is not None else variant.n)
    yield _mean(variant, result)
    yield "" if pair is None else difference(pair, result)
    yield "" if pair is None or pair.p_holm is None else _p(pair.p_holm)
    wins = None if pair is None else pair.wins
    yield "" if wins is None else f"{wins.wins}–{wins.ties}–{wins.losses}"
    new = None if pair is None else pair.new_images
    yield "" if new is None else _interval(new.interval, result)
    yield "" if variant.parameters is None else f"{variant.parameters:,}"
    yield "" if variant.macs is None else f"{variant.macs:,}"
    yield "" if variant.memory_ratio is None else f"× {variant.memory_ratio:.2f}"
    yield _verdict(pair) if pair is not None else "control" if variant.is_control else ""


def _mean(variant: VariantResultView, result: ResultView) -> str:
    if variant.mean is None:
        return "hidden" if result.hidden and variant.n else ""
    spread = "" if variant.sd is None else f" ± {points(variant.sd, result, sign=False)}"
    return points(variant.mean, result, sign=False) + spread


def _verdict(pair: PairResultView) -> str:
    return f"{pair.verdict} ({pair.scope})" if pair.scope is not None else pair.verdict


def _interval(interval: IntervalView | None, result: ResultView) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"[{points(interval.low, result)}, {points(interval.high, result)}]"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def _record(variant: VariantResultView, pair: PairResultView | None) -> dict[str, Any]:
    interval = None if pair is None else told_interval(pair)
    new = None if pair is None or pair.new_images is None else pair.new_images
    wins = None if pair is None else pair.wins
    return {
        "variant": variant.name,
        "against": None if pair is None else pair.second,
        "n": variant.n if pair is None else pair.n,
        "mean": variant.mean,
        "sd": variant.sd,
        "difference": None if pair is None else pair.difference,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "p": None if pair is None else pair.p,
        "p_holm": None if pair is None else pair.p_holm,
        "wins": None if wins is None else wins.wins,
        "ties": None if wins is None else wins.ties,
        "losses": None if wins is None else wins.losses,
        "new_images_low": None if new is None else new.interval.low,
        "new_images_high": None if new is None else new.interval.high,
        "parameters": variant.parameters,
        "macs": variant.macs,
        "peak_memory_bytes": variant.peak_memory_bytes,
        "images_per_second": variant.images_per_second,
        "diverged": variant.diverged,
        "verdict": None if pair is None else pair.verdict,
        "scope": None if pair is None else pair.scope,
    }
