"""The result of a comparison as columns and rows to print, as a DataFrame, as HTML for notebooks, and in words."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from service.client.errors import NeedsPandas
from service.comparisons.table import replication_words, table_of
from service.schemas.comparison_results import PairResultView, ResultView, VariantResultView

if TYPE_CHECKING:
    from pandas import DataFrame

LEFT = ("variant", "verdict")
"""Columns of words; those of numbers stand to the right."""
GIVEN_UP = (
    "images/s in training",
    "memory",
    "MACs",
    "parameters",
    "wins–ties–losses",
    "images/s × [95 %]",
    "new images [95 %]",
    "p (Holm)",
)
"""Columns that a narrow terminal goes without, in this order."""
GAP = 3  # characters between columns


def shown_table(result: ResultView) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns and rows of the table; the names of columns that stand to the right begin with >."""
    table = table_of(result)
    return [name if name in LEFT else f">{name}" for name in table.head], [*table.rows]


def fitting_table(result: ResultView, width: int) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    """The same as wide as so many characters, where that can be, and the columns that had to go."""
    columns, rows = shown_table(result)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    kept, gone = [*range(len(columns))], list[str]()
    for name in GIVEN_UP:
        if sum(widths[number] + GAP for number in kept) <= width:
            break
        lost = [number for number in kept if columns[number].removeprefix(">") == name]
        kept = [number for number in kept if number not in lost]
        gone += [name] * len(lost)
    return [columns[number] for number in kept], [tuple(row[number] for number in kept) for row in rows], gone


def records(result: ResultView) -> list[dict[str, Any]]:
    """The control, and a row for each difference, as numbers. Accuracies and differences are fractions of 1."""
    by_name = {variant.name: variant for variant in result.variants}
    paired = {pair.first for pair in result.pairs}
    alone = [_record(variant, None) for variant in result.variants if variant.name not in paired]
    return alone + [_record(by_name[pair.first], pair) for pair in result.pairs]


def as_frame(result: ResultView) -> "DataFrame":
    """The records as a DataFrame. Raises NeedsPandas without pandas."""
    try:
        from pandas import DataFrame
    except ModuleNotFoundError as error:
        raise NeedsPandas from error
    return DataFrame(records(result))


def as_html(result: ResultView) -> str:
    """The table with the verdicts in words below it, as a piece of HTML."""
    table = table_of(result)
    heads = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    said = "".join(f"<p>{escape(line)}</p>" for line in words(result))
    head = f"<p><b>{escape(result.name)}</b> {result.state}, {escape(result.metric)}</p>"
    return f"{head}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{said}"


def words(result: ResultView) -> Iterator[str]:
    """What differs where nothing can be compared, the verdicts, and what to know before believing them."""
    for field in result.not_comparable:
        runs = "; ".join(f"{value.value}: {value.runs} runs" for value in field.values)
        yield f"not comparable, {field.field}: {field.words}" + f" ({runs})" * bool(runs)
    yield from result.summary
    for other in result.replications:
        yield from replication_words(other)
    warnings = [*result.warnings, *(warning for pair in result.pairs for warning in pair.warnings)]
    yield from (f"note: {warning}" for warning in dict.fromkeys(warnings))


def _record(variant: VariantResultView, pair: PairResultView | None) -> dict[str, Any]:
    interval = None if pair is None else pair.interval or pair.anytime
    new = None if pair is None or pair.new_images is None else pair.new_images
    wins = None if pair is None else pair.wins
    ratio = None if pair is None else pair.throughput
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
        "throughput": None if ratio is None else ratio.value,
        "throughput_low": None if ratio is None else ratio.interval.low,
        "throughput_high": None if ratio is None else ratio.interval.high,
        "memory_ratio": variant.memory_ratio if pair is None else pair.memory_ratio,
        "diverged": variant.diverged,
        "verdict": None if pair is None else pair.verdict,
        "scope": None if pair is None else pair.scope,
    }
