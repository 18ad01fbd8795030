"""The table of a comparison as cells of text, for the CLI, Markdown and HTML alike.

It is of a `ResultView` and imports the schemas alone: neither SQLAlchemy nor SciPy, so that a client may show it.
"""

from dataclasses import dataclass

from service.comparisons.formatting import NONE, count, interval, p_value, points, ratio, speed, throughput, verdict
from service.schemas.comparison_results import PairResultView, ReplicationView, ResultView, VariantResultView

HIDDEN = "hidden"
ALWAYS = ("variant", "n", "verdict")
"""Columns that are shown even where every cell is empty."""


@dataclass(frozen=True)
class Table:
    """A row for each variant, the control first, then one for each other pair that is judged."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Cells in the order of `head`; `–` where there is nothing to tell."""


def table_of(view: ResultView) -> Table:
    """Return what is known of each variant and of its difference from the control; without columns that are empty."""
    by_first = {pair.first: pair for pair in view.pairs if pair.second == view.control}
    ordered = sorted(view.variants, key=lambda variant: not variant.is_control)
    rows = [_variant(variant, by_first.get(variant.name), view) for variant in ordered]
    rows += [_pair(pair, view) for pair in view.pairs if pair.second != view.control]
    head = [name for name in rows[0] if name in ALWAYS or any(row[name] != NONE for row in rows)]
    return Table(tuple(head), tuple(tuple(row[name] for name in head) for row in rows))


def replication_words(other: ReplicationView) -> list[str]:
    """Return what another comparison with the same question and other seeds has shown, a line for each pair."""
    what = "Replicated by" if other.relation == "by" else "Replicates"
    if other.state is None:
        return [f"{what} {other.id}, which was deleted."]
    return [f"{what} {other.name} ({other.id}): {line}" for line in other.summary]


def _variant(variant: VariantResultView, pair: PairResultView | None, view: ResultView) -> dict[str, str]:
    known = _difference(pair, view)
    return {
        "variant": f"{variant.name} (control)" if variant.is_control else variant.name,
        "n": str(variant.n),
        "top-1, %": HIDDEN if view.hidden else _accuracy(variant, view),
        **known,
        "parameters": count(variant.parameters),
        "MACs": count(variant.macs),
        "images/s × [95 %]": NONE if pair is None else _throughput(pair, view),
        "images/s in training": speed(variant.images_per_second),
        "memory": ratio(variant.memory_ratio),
        "verdict": NONE if pair is None else verdict(pair),
    }


def _pair(pair: PairResultView, view: ResultView) -> dict[str, str]:
    return {
        "variant": f"{pair.first} − {pair.second}",
        "n": str(pair.n),
        "top-1, %": NONE,
        **_difference(pair, view),
        "parameters": ratio(pair.parameters_ratio),
        "MACs": ratio(pair.macs_ratio),
        "images/s × [95 %]": _throughput(pair, view),
        "images/s in training": NONE,
        "memory": ratio(pair.memory_ratio),
        "verdict": verdict(pair),
    }


def _throughput(pair: PairResultView, view: ResultView) -> str:
    """Return the ratio of a probe, or where that probe is."""
    of = next((probe for probe in view.probes if probe.variant == pair.first and pair.second == view.control), None)
    if pair.throughput is not None or of is None or of.state == "off":
        return throughput(pair.throughput)
    return f"probe {of.state}"


def _accuracy(variant: VariantResultView, view: ResultView) -> str:
    if variant.mean is None:
        return NONE
    spread = "" if variant.sd is None else f" ± {points(variant.sd, view)}"
    return points(variant.mean, view) + spread


def _difference(pair: PairResultView | None, view: ResultView) -> dict[str, str]:
    """Return the cells of a difference. Of runs that are not comparable the difference alone, as nothing tests it."""
    if pair is None:
        return {"Δ [95 %], points": NONE, "p (Holm)": NONE, "wins–ties–losses": NONE, "new images [95 %]": NONE}
    tested = pair.verdict != "not comparable"
    new = interval(pair.new_images.interval, view) if tested and pair.new_images else ""
    wins = pair.wins if tested else None
    return {
        "Δ [95 %], points": HIDDEN if view.hidden else difference(pair, view),
        "p (Holm)": p_value(pair.p_holm) if tested else NONE,
        "wins–ties–losses": NONE if wins is None else f"{wins.wins}–{wins.ties}–{wins.losses}",
        "new images [95 %]": new or NONE,
    }


def difference(pair: PairResultView, view: ResultView) -> str:
    """Return the mean difference with its interval, and of which kind that is where it is not the usual one."""
    number = points(pair.difference, view, signed=True)
    if pair.difference is None or pair.verdict == "not comparable":
        return number
    told = interval(pair.interval or pair.anytime, view)
    kind = "" if pair.interval else " provisional" if pair.verdict == "running" else " at any n" if told else ""
    return f"{number} {told}".rstrip() + kind
