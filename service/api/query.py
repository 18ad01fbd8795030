"""The query of a request holds nothing but what its route knows: what is misspelt is refused, and never ignored."""

from collections.abc import Iterator
from typing import Any, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo


def known_query(route: object) -> dict[str, bool]:
    """The parameters that a route takes in its query, also by its dependencies; whether each may stand several times.

    A route that is none of FastAPI's takes none.
    """
    return dict(_parameters(route.dependant)) if isinstance(route, APIRoute) else {}


async def only_known_query(request: Request) -> None:
    """A dependency, before all others of a route. Raises RequestValidationError for what the route does not know.

    So does a parameter that stands twice, and holds one value: FastAPI would take the last.
    """
    if not request.query_params:
        return
    known = known_query(request.scope.get("route"))
    errors: list[dict[str, Any]] = []
    for name in request.query_params:
        at = {"loc": ("query", name), "input": None}
        if name not in known:
            errors.append({"type": "extra_forbidden", "msg": "there is no such parameter", **at})
        elif not known[name] and (count := len(request.query_params.getlist(name))) > 1:
            errors.append({"type": "value_error", "msg": f"this stands {count} times, and takes one value", **at})
    if errors:
        raise RequestValidationError(errors)


def _parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    for parameter in dependant.query_params:
        model = parameter.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            for name, field in model.model_fields.items():
                yield field.alias or name, _is_list(field)
        else:
            yield parameter.alias, _is_list(parameter.field_info)
    for inner in dependant.dependencies:
        yield from _parameters(inner)


def _is_list(field: FieldInfo) -> bool:
    """Of the types that queries have here: a list, or a list or nothing."""
    kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return any(get_origin(kind) is list for kind in kinds)
