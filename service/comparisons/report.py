"""The report of a comparison, as Markdown or as one HTML file that needs nothing else.

Both are of a `ResultView` alone. Whatever users or runs have named stays text: no markup of theirs is kept.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape
from urllib.parse import quote

from service.comparisons.formatting import margin, points, seeds_so_far
from service.comparisons.table import HIDDEN, replication_words, table_of
from service.schemas.comparison_results import ResultView, RunView

EXPERIMENTS = "/v1/experiments"
CURVES = "Curves of the variants in MLflow"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What the page may load, wherever it is kept: nothing but its own styles."""
_WHY_ANYTIME = {
    "added": "Seeds were added after results had been seen",
    "stopped": "The comparison ended before its last seed",
}
STYLE = """
:root{color-scheme:light dark;--ink:#16191d;--soft:#58606b;--paper:#fff;--rule:#d5d9de;--mark:#f0f2f4}
@media (prefers-color-scheme:dark){:root{--ink:#e9ecef;--soft:#a5aeb8;--paper:#14171a;--rule:#363c43;--mark:#22272c}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1200px;padding:1.5rem 1rem 3rem;color:var(--ink);background:var(--paper);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.soft{color:var(--soft)}.description{white-space:pre-wrap}
.said{list-style:none;padding:0}.said b{display:block}
.said li{padding:.6rem .9rem;margin:.5rem 0;background:var(--mark);border-left:4px solid var(--soft)}
.wide{overflow-x:auto}.wide svg{min-width:780px;width:100%;height:auto;display:block}
table{border-collapse:collapse;font-size:.85rem;overflow-wrap:normal}
th,td{padding:.3rem .55rem;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top;white-space:nowrap}
thead th{color:var(--soft);font-weight:600;white-space:normal;vertical-align:bottom}th:first-child{text-align:left}
.numbers tbody th{white-space:normal;overflow-wrap:anywhere;min-width:9rem;max-width:14rem}
.runs thead th{overflow-wrap:anywhere;min-width:5.5rem;max-width:9rem}
.numbers td:last-child,.numbers th:last-child{text-align:left;white-space:normal;min-width:10rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:0}dt{color:var(--soft)}dd{margin:0}
a{color:inherit}summary{cursor:pointer}
@media print{body{max-width:none}details>*{display:block}}
"""


def markdown(view: ResultView, *, experiments: str = EXPERIMENTS, mlflow: str | None = None) -> str:
    """Return the report as Markdown, with links to the runs below the URL `experiments`, and to their curves."""
    parts = [f"# {_md(view.name)}", *opening(view)]
    parts += ["## What was held equal", _list([f"{each.name}: {each.value}" for each in view.conditions])]
    parts += ["## How it was judged", _list(list(judged(view)))]
    head, rows = _runs(view)
    links = [[_md(row[0]), *(_md_link(cell, experiments) for cell in row[1])] for row in rows]
    parts += ["## Runs", _table(head, links, is_ready=True)] if links else []
    parts += [f"[{CURVES}]({mlflow})"] if mlflow else []
    return "\n\n".join(part for part in parts if part) + "\n"


def opening(view: ResultView) -> list[str]:
    """Return what a reader wants first, as blocks of Markdown: the question, the verdicts in words, the numbers."""
    about = "\n".join(f"> {_no_tags(line)}".rstrip() for line in view.description.splitlines())
    return [_md(_headline(view)), about, _list(view.summary), *numbers(view)]


def numbers(view: ResultView) -> list[str]:
    """Return why runs cannot be compared, what to know before believing it, and the table, as blocks of Markdown."""
    table, parts = table_of(view), list[str]()
    if view.replications:
        parts += ["## With other seeds", _list(_replications(view))]
    if view.not_comparable:
        parts += ["## Not comparable", _list([field.words for field in view.not_comparable])]
    if view.warnings:
        parts += ["## Warnings", _list(view.warnings)]
    return [*parts, "## Numbers", _table(table.head, table.rows)]


def html(view: ResultView, svg: str, *, experiments: str = EXPERIMENTS, mlflow: str | None = None) -> str:
    """Return the report as an HTML file with the figure `svg` in it, and links to the runs below `experiments`.

    `mlflow` is the page of their curves.

    It has no script and asks nothing of any server; a policy of its own forbids both.
    """
    table = table_of(view)
    verdicts = "".join(
        f"<li><b>{_text(pair.first)} against {_text(pair.second)}: {_text(pair.verdict)}</b>{_text(pair.sentence)}</li>"
        for pair in view.pairs
    )
    body = [
        f"<h1><bdi>{_text(view.name)}</bdi></h1><p class=soft>{_text(_headline(view))}</p>",
        f"<p class=description>{_text(view.description)}</p>" if view.description else "",
        f"<ul class=said>{verdicts}</ul>",
        _section("With other seeds", _items(_replications(view))),
        _section("Not comparable", _items([field.words for field in view.not_comparable])),
        _section("Warnings", _items(view.warnings)),
        _scrolled(svg, "Figure"),
        _section("Numbers", _grid("numbers", table.head, [[_text(cell) for cell in row] for row in table.rows])),
        _section("What was held equal", _definitions(view)),
        _section("How it was judged", _items(list(judged(view)))),
        _section("Runs", _runs_grid(view, experiments)),
        f'<p><a href="{_text(mlflow)}">{CURVES}</a></p>' if mlflow else "",
    ]
    content = "\n".join(part for part in body if part)
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{_text(view.name)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{content}\n</main></body></html>\n"
    )


def _replications(view: ResultView) -> list[str]:
    return [line for other in view.replications for line in replication_words(other)]


def judged(view: ResultView) -> Iterator[str]:
    """Say in a few lines how the verdicts were come to, and the costs."""
    yield (
        "Every variant is trained with the same seeds. A difference is that of two runs of one seed, in whole images "
        "of the same part; runs that diverge count with the accuracy of chance, and none is left out."
    )
    tests = "" if view.tests == 1 else f", adjusted by Holm's procedure over {view.tests} differences"
    if view.seeds.rule in ("added", "stopped"):
        together = "" if view.tests == 1 else f", for all {view.tests} differences together"
        yield f"{_WHY_ANYTIME[view.seeds.rule]}, so only an interval for any number of seeds is told{together}."
    else:
        yield f"The interval is Student's, 95 % for one difference; p is of the paired t-test{tests}."
    if view.margin is None:
        yield "No margin was given or could be used, so that nothing is called equal."
    else:
        yield f"Equal means smaller than {margin(view)} by two one-sided tests{tests}."
    yield (
        "A verdict is about new images where a variance over seeds and images both agrees; else about these images "
        "only. Costs in training are shown, and not compared."
    )
    yield {
        "fixed": f"The number of seeds, {view.seeds.planned}, was said beforehand; a verdict takes 8, an interval 5.",
        "precision": (
            f"The spread of the first {view.seeds.pilot} seeds alone chose their number, for an interval of "
            f"±{100 * (view.seeds.half_width or 0):g} points; means stay hidden until the last. A verdict takes 8."
        ),
        "added": f"There are {view.seeds.finished} seeds in all; a verdict takes 8, an interval 5.",
        "stopped": f"Of {view.seeds.planned} seeds {view.seeds.finished} are done; a verdict takes 8, an interval 5.",
    }[view.seeds.rule]
    yield from _probed(view)


def _probed(view: ResultView) -> Iterator[str]:
    """Say what was measured of cost, and where it was not, why."""
    measured = [probe for probe in view.probes if probe.throughput is not None]
    if measured:
        devices = ", ".join(sorted({probe.device for probe in measured if probe.device}))
        yield (
            f"Images/s are compared by a probe{f' on {devices}' if devices else ''}: training steps of the control and "
            f"the variant in turns, {measured[0].throughput.rounds if measured[0].throughput else 0} rounds, alone on "
            "the same devices, without reading images. The interval is Student's over the rounds; memory is the peak."
        )
    for why in dict.fromkeys(probe.why for probe in view.probes if probe.why):
        named = ", ".join(probe.variant for probe in view.probes if probe.why == why)
        yield f"Images/s are not compared for {named}: {why}."


def _headline(view: ResultView) -> str:
    images = "" if view.images is None else f" on {view.images:,} images"
    state = ", running" if view.running else ""
    return f"{view.metric}{images}, {seeds_so_far(view)}{state}. Comparison {view.study_id} of project {view.project}."


def _runs(view: ResultView) -> tuple[list[str], list[tuple[str, list[tuple[str, RunView | None]]]]]:
    """Return a head, and for each seed its name and what each variant reached with it."""
    by_place = {(each.name, run.block): run for each in view.variants for run in each.runs}
    blocks = sorted({(run.block, run.seed) for run in by_place.values()})
    rows = []
    for block, seed in blocks:
        runs = [by_place.get((each.name, block)) for each in view.variants]
        rows.append((f"{block + 1} ({seed})", [(_reached(run, view), run) for run in runs]))
    return ["seed", *(each.name for each in view.variants)], rows


def _reached(run: RunView | None, view: ResultView) -> str:
    if run is None:
        return "–"
    if view.hidden and run.counted:
        return HIDDEN
    if run.correct is None or not view.images:
        return "deleted" if run.state is None else run.state.lower()
    return f"{points(run.correct / view.images, view)} %{' (diverged)' if run.diverged else ''}"


def _md(words: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    told = re.sub(r"\](?=[(:\[])", r"\\]", re.sub(r"([\\`*_|~])", r"\\\1", " ".join(words.split())))
    told = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", re.sub(r"^(#+(?=\s|$)|[+=-]+(?=\s|$)|>)", r"\\\1", told))
    return _no_tags(told)


def _no_tags(words: str) -> str:
    """Return Markdown without HTML: what would begin a tag or an entity is text."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", words))


def _list(rows: Sequence[str]) -> str:
    return "\n".join(f"- {_md(row)}" for row in rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, is_ready: bool = False) -> str:
    cells = [[cell if is_ready else _md(cell) for cell in row] for row in rows]
    lines = [[_md(name) for name in head], ["---", *("--:" for _ in head[1:])], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md_link(cell: tuple[str, RunView | None], experiments: str) -> str:
    words, run = cell
    return _md(words) if run is None or run.state is None else f"[{_md(words)}]({_url(run, experiments)})"


def _url(run: RunView, experiments: str) -> str:
    return f"{experiments.rstrip('/')}/{quote(run.experiment_id, safe='')}"


def _text(words: str) -> str:
    return escape(words)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>" if content else ""


def _items(rows: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(row)}</li>' for row in rows)}</ul>" if rows else ""


def _definitions(view: ResultView) -> str:
    return f"<dl>{''.join(f'<dt>{_text(x.name)}</dt><dd>{_text(x.value)}</dd>' for x in view.conditions)}</dl>"


def _scrolled(content: str, name: str) -> str:
    """Return something wide that is scrolled by itself, by the keyboard too."""
    return f'<div class=wide role=region tabindex=0 aria-label="{_text(name)}">{content}</div>'


def _grid(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of ready cells; the first of each row is its head."""
    names = "".join(f"<th scope=col>{_text(name)}</th>" for name in head)
    told = "".join(
        f"<tr><th scope=row>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    table = f"<table class={name}><thead><tr>{names}</tr></thead><tbody>{told}</tbody></table>"
    return _scrolled(table, name)


def _runs_grid(view: ResultView, experiments: str) -> str:
    head, rows = _runs(view)
    if not rows:
        return ""
    cells = [[_text(seed), *(_cell(words, run, experiments) for words, run in reached)] for seed, reached in rows]
    grid = _grid("runs", head, cells)
    return grid if len(rows) <= 20 else f"<details><summary>{len(rows)} seeds</summary>{grid}</details>"


def _cell(words: str, run: RunView | None, experiments: str) -> str:
    if run is None or run.state is None:
        return _text(words)
    return f'<a href="{_text(_url(run, experiments))}" title="{_text(run.experiment_id)}">{_text(words)}</a>'
