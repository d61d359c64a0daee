"""The connect timeout, set as a driver's own argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dbconfig.settings.durations import LONGEST_CONNECT
from dbconfig.settings.findings import Finding, reject_all
from dbconfig.settings.known_drivers import backend_of, is_generic
from dbconfig.settings.url_parsing import parsed_url
from dbconfig.settings.value_types import plain

KEY: Final = "connect_timeout"  # libpq's name, PyMySQL's, and ours

_WHERE: Final = {"url": "in the URL", "query": "in `query`", "connect_args": "in connect_args"}
_ARGUMENTS: Final = (KEY, "timeout")  # the second is one driver's name for it


def settled(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the data of a database with its driver's own timeout moved to `connect_timeout`.

    So the configured limit applies everywhere: a longer one is not cut to the default.

    Raises:
        PydanticCustomError: it is set twice, or is invalid.
    """
    found = _written(data)
    if not found:
        return data
    if len(found) > 1 or KEY in data:
        raise reject_all([_twice(found, itself=KEY in data)])
    ((place, value),) = found
    seconds = _seconds(place, value)
    if seconds is None:
        return data  # reported with the other arguments
    if not 0 < seconds <= LONGEST_CONNECT:
        message = f"'{place[-1]}' {_WHERE[place[0]]} must be greater than 0 and at most {LONGEST_CONNECT} seconds"
        raise reject_all([Finding("out-of-range", message, at=_at(place))])
    return {**data, KEY: seconds}


def beneath(inherited: Mapping[str, Any], says: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a replica inherits, without the limit if it sets its own, under any name."""
    if KEY in says:
        query = {name: value for name, value in (plain(inherited.get("query")) or {}).items() if name != KEY}
        return {**inherited, "query": query}
    own = bool(_written({"drivername": inherited.get("drivername"), **says}))
    return {key: value for key, value in inherited.items() if not (own and key == KEY)}


def path(key: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the path of a key; for the limit, the path under which it was written."""
    names = ("url", "drivername", "query", "connect_args")
    found = _written({name: values.get(name) for name in names}) if key == KEY else []
    return _at(found[0][0]) if found else tuple(key.split("."))


def _written(data: Mapping[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
    """Return where the limit is set for the driver, and its value."""
    url = parsed_url(data.get("url"))
    try:
        backend = backend_of(str(plain(data.get("drivername")) or (url.drivername if url else "")))
    except ValueError:
        return []  # reported when the system is validated
    if backend == "sqlite" or is_generic(backend):  # whose `timeout` is for locks, or unknown
        return []
    found: list[tuple[tuple[str, ...], Any]] = [(("url", KEY), one) for one in (url.query.get(KEY, ()) if url else ())]
    query, arguments = plain(data.get("query")), plain(data.get("connect_args"))
    if isinstance(query, Mapping) and KEY in query:
        values = query[KEY]
        found += [(("query", KEY), one) for one in (values if isinstance(values, (list, tuple)) else (values,))]
    if isinstance(arguments, Mapping):
        names = _ARGUMENTS if backend == "postgresql" else _ARGUMENTS[:1]
        found += [(("connect_args", name), arguments[name]) for name in names if name in arguments]
    return found


def _seconds(place: tuple[str, ...], value: Any) -> float | None:
    if place[0] != "connect_args":
        text = str(value)
        if not (text.isascii() and text.isdigit()):
            raise reject_all(
                [Finding("wrong-type", f"'{KEY}' {_WHERE[place[0]]} must be a whole number of seconds", at=_at(place))]
            )
        return float(text)
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _twice(found: list[tuple[tuple[str, ...], Any]], *, itself: bool) -> Finding:
    last = found[-1][0]
    if not itself:
        places = ", and ".join(_where(place) for place, _ in found)
        return Finding("given-twice", f"`{KEY}` is given twice: {places}", f"write it once, as `{KEY}`", _at(last))
    if last[0] == "connect_args":
        message = f"`{KEY}` is given twice: as a key and {_where(last)}"
        return Finding("given-twice", message, "remove the one in connect_args", last, against=KEY)
    # A key for all databases of a profile may conflict with the URL of one of them.
    message = f"`{KEY}` is given twice: as a key and {_where(last)}"
    return Finding("given-twice", message, "remove one of the two", (KEY,), because=last[0], against=last[0])


def _at(place: tuple[str, ...]) -> tuple[str, ...]:
    return place[:1] if place[0] == "url" else place


def _where(place: tuple[str, ...]) -> str:
    named = "" if place[-1] == KEY else f"as '{place[-1]}' "
    return named + _WHERE[place[0]]
