"""Experiments as tables of HTML, for notebooks. Every text is escaped: names and tags are other people's."""

from collections.abc import Iterable, Sequence
from html import escape

from cbam_core.printable import escaped_line
from service.client.frame import recipe_of
from service.schemas.experiments import ExperimentView

MOST_ROWS = 60
HEAD = ("id", "name", "state", "attention", "backbone", "dataset", "seed", "val/top1", "test/top1", "created (UTC)")


def list_html(views: Sequence[ExperimentView]) -> str:
    """A table with a row for each of the first experiments, and how many more there are."""
    rows = [_row(view) for view in views[:MOST_ROWS]]
    more = len(views) - len(rows)
    return _table([HEAD, *rows], head=True) + (f"<p>and {more} more</p>" if more > 0 else "")


def experiment_html(view: ExperimentView) -> str:
    """A table of what one experiment is, where it is, and what it has reached."""
    recipe = recipe_of(view)
    facts: list[tuple[str, object]] = [
        *((name, getattr(view, name)) for name in ("id", "name", "project", "owner", "state", "reason", "message")),
        *recipe.items(),
        *sorted(view.metrics.items()),
        *((name, view.summary.get(name)) for name in ("parameters", "macs", "images_per_second", "wall_seconds")),
        ("created (UTC)", f"{view.created_at:%Y-%m-%d %H:%M:%S}"),
        *((f"tag {name}", value) for name, value in view.tags.items()),
    ]
    return _table([(name, _shown(value)) for name, value in facts if value not in (None, "")])


def _row(view: ExperimentView) -> tuple[str, ...]:
    recipe = recipe_of(view)
    names = (view.id, view.name, view.state, *(recipe[name] for name in HEAD[3:7]))
    top1 = (view.metrics.get(name) for name in HEAD[7:9])
    return *map(_shown, (*names, *top1)), f"{view.created_at:%Y-%m-%d %H:%M:%S}"


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000 else str(value)


def _table(rows: Iterable[Sequence[str]], *, head: bool = False) -> str:
    lines = []
    for index, row in enumerate(rows):
        kind = "th" if head and index == 0 else "td"
        cells = "".join(f"<{kind}>{escape(escaped_line(text))}</{kind}>" for text in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
