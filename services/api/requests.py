"""Checks of every request: its route knows all of its parameters, and the client accepts the type of the answer."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, get_args, get_origin
from weakref import WeakKeyDictionary

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from moodline.services.api.negotiation import require_acceptable
from moodline.shared.errors import ParameterError

_MOST_OF_A_NAME: Final = 64
_JSON: Final = "application/json"


class _Known(NamedTuple):
    """The parameters of a route, those that may come several times, and the media types of its answers."""

    names: frozenset[str]
    repeatable: frozenset[str]
    media_types: tuple[str, ...]


_KNOWN: Final[WeakKeyDictionary[Any, _Known]] = WeakKeyDictionary()
"""The parameters of each route, by its handler; read from the route once."""


async def check_request(connection: HTTPConnection) -> None:
    """Refuse what a route would ignore. A dependency of the whole application.

    Raises:
        ParameterError: a parameter is unknown, or one that has one value is given twice.
        NotAcceptableError: the answer is not to be had in any of the formats that `Accept` names.
    """
    route = connection.scope.get("route")
    if getattr(route, "dependant", None) is None:
        return
    known = _known(route)
    for name, count in Counter(name for name, _ in connection.query_params.multi_items()).items():
        if name not in known.names:
            raise ParameterError(name[:_MOST_OF_A_NAME], f"{name[:_MOST_OF_A_NAME]}: is unknown here{_hint(known)}")
        if count > 1 and name not in known.repeatable:
            raise ParameterError(name, f"{name}: is given {count} times")
    # Routes with a choice of formats know more of it than their media types.
    if known.media_types and "format" not in known.names and connection.scope.get("method") == "GET":
        require_acceptable(connection.headers, known.media_types)


def _hint(known: _Known) -> str:
    return f"; known: {', '.join(sorted(known.names))}" if known.names else "; there are no parameters"


def _known(route: Any) -> _Known:
    known = _KNOWN.get(route.endpoint)
    if known is None:
        fields = list(_fields(route.dependant))
        repeatable = frozenset(name for name, annotation in fields if _is_list(annotation))
        known = _Known(frozenset(name for name, _ in fields), repeatable, _media_types(route))
        _KNOWN[route.endpoint] = known
    return known


def _fields(dependant: Dependant) -> Iterator[tuple[str, Any]]:
    for field in dependant.query_params:
        annotation = field.field_info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, inner in annotation.model_fields.items():
                yield inner.alias or name, inner.annotation
        else:
            yield field.alias, annotation
    for each in dependant.dependencies:
        yield from _fields(each)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple, set) or any(_is_list(each) for each in get_args(annotation))


def _media_types(route: Any) -> tuple[str, ...]:
    if not isinstance(route, APIRoute):
        return ()
    described = dict.fromkeys(
        media for status, each in route.responses.items() if status in (200, 201) for media in each.get("content", ())
    )
    own = [_JSON] if route.response_field is not None else []
    return tuple(dict.fromkeys([*own, *described]))
