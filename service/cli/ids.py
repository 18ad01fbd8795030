"""Experiments, comparisons and sweeps as the user names them: by id, by name, or by how either begins."""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from service.domain.values import ID_ALPHABET
from service.errors import ServiceError

if TYPE_CHECKING:
    from service.client.client import Client
    from service.client.comparing.handle import ComparisonHandle
    from service.client.sweeping.handle import SweepHandle
    from service.schemas.experiments import ExperimentView
    from service.schemas.studies import ComparisonView
    from service.schemas.sweep_views import SweepView

WHOLE_ID = re.compile(f"[{ID_ALPHABET}]{{12}}")
START_OF_ID = re.compile(f"[{ID_ALPHABET}]{{0,11}}")
AMONG = 200  # of the newest
SHOWN = 5
HELP = "or names of experiments, or their first characters"
Ids = Annotated[list[str], typer.Argument(help=f"Ids {HELP}.", metavar="ID...", show_default=False)]
SomeIds = Annotated[list[str] | None, typer.Argument(help=f"Ids {HELP}.", metavar="[ID...]", show_default=False)]
Id = Annotated[
    str, typer.Argument(help="Id or name of an experiment, or its first characters.", metavar="ID", show_default=False)
]
ComparisonId = Annotated[
    str, typer.Argument(help="Id or name of a comparison, or its first characters.", metavar="ID", show_default=False)
]
ComparisonIds = Annotated[
    list[str],
    typer.Argument(help="Ids or names of comparisons, or their first characters.", metavar="ID...", show_default=False),
]


SweepId = Annotated[
    str, typer.Argument(help="Id or name of a sweep, or its first characters.", metavar="ID", show_default=False)
]
SweepIds = Annotated[
    list[str],
    typer.Argument(help="Ids or names of sweeps, or their first characters.", metavar="ID...", show_default=False),
]


class UnclearId(ServiceError):
    """No experiment, comparison or sweep, or more than one, is named so."""


def whole(client: "Client", given: str, *, exactly: bool = False) -> str:
    """The id that is meant. Raises UnclearId where none of the newest experiments is named so, or several are.

    An id goes before every name: anybody may name an experiment after another's id. A name that is the whole of what
    was given goes before names that only begin so, which nothing is taken for `exactly`.
    """
    named = _newest(client, q=given) if given else []
    found = {view.id: view for view in named if view.name == given}
    if WHOLE_ID.fullmatch(given) and (not found or _is_there(client, given)):
        return given
    if not found and len(named) == AMONG:
        raise UnclearId(f"{given!r} is in the names of more than {AMONG} experiments: give the id, see `cbam list`")
    if exactly and not found:
        raise UnclearId(f"among the newest {AMONG} no experiment is named {given!r}; see `cbam list`")
    if START_OF_ID.fullmatch(given):
        found |= {view.id: view for view in _newest(client) if view.id.startswith(given)}
    found = found or {view.id: view for view in named if view.name.startswith(given)}
    return _the_one(given, found.values(), "experiment", "cbam list")


def whole_comparison(client: "Client", given: str, *, exactly: bool = False) -> str:
    """The id of the comparison that is meant, by the same rules. Raises UnclearId."""
    return _whole_study("comparison", client.comparison, client.comparisons, given, exactly=exactly)


def whole_sweep(client: "Client", given: str, *, exactly: bool = False) -> str:
    """The id of the sweep that is meant, by the same rules. Raises UnclearId."""
    return _whole_study("sweep", client.get_sweep, client.sweeps, given, exactly=exactly)


def whole_study(client: "Client", given: str) -> str:
    """The id of the comparison or sweep that is meant: a comparison, where both may be. Raises UnclearId."""
    try:
        return whole_comparison(client, given)
    except UnclearId as error:
        with suppress(UnclearId):
            return whole_sweep(client, given)
        raise error from None


def _whole_study(
    kind: str,
    get: "Callable[[str], ComparisonHandle | SweepHandle]",
    newest: "Callable[..., Iterator[ComparisonView | SweepView]]",
    given: str,
    *,
    exactly: bool,
) -> str:
    from service.client.errors import NotFound

    verb = {"comparison": "cbam compare list", "sweep": "cbam sweep list"}[kind]
    if WHOLE_ID.fullmatch(given):
        with suppress(NotFound):
            return get(given).id
    views: list[ComparisonView | SweepView] = [*islice(newest(page_size=AMONG), AMONG)] if given else []
    found = {view.id: view for view in views if view.name == given}
    if exactly and not found:
        raise UnclearId(f"among the newest {AMONG} no {kind} is named {given!r}; see `{verb}`")
    if START_OF_ID.fullmatch(given):
        found |= {view.id: view for view in views if view.id.startswith(given)}
    found = found or {view.id: view for view in views if view.name.startswith(given)}
    return _the_one(given, found.values(), kind, verb)


def _the_one(given: str, found: "Collection[ExperimentView | ComparisonView | SweepView]", kind: str, verb: str) -> str:
    if not found:
        raise UnclearId(f"among the newest {AMONG} there is no {kind} {given!r}; see `{verb}`")
    if len(found) == 1:
        return next(iter(found)).id
    some = [f"  {view.id}  {view.name}  {view.state}" for view in islice(found, SHOWN)]
    more = ["  …"] * (len(found) > SHOWN)
    raise UnclearId("\n".join([f"{len(found)} {kind}s may be meant by {given!r}; say which:", *some, *more]))


def _is_there(client: "Client", experiment_id: str) -> bool:
    from service.client.errors import NotFound

    try:
        client.view(experiment_id)
    except NotFound:
        return False
    return True


def _newest(client: "Client", q: str | None = None) -> "list[ExperimentView]":
    return list(islice(client.list(q=q, page_size=AMONG, spec=False), AMONG))
