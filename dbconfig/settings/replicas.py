"""The settings of a replica: those of its primary, and what the replica overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from dbconfig.settings import driver_timeouts
from dbconfig.settings.findings import Finding, reject, reject_all
from dbconfig.settings.known_drivers import backend_of
from dbconfig.settings.located_values import MappingNode, SequenceNode
from dbconfig.settings.url_parsing import parsed_url
from dbconfig.settings.value_types import plain

_PARTS: Final = ("drivername", "username", "password", "host", "port", "database")
_ADDRESS: Final = frozenset({"url", "query", *_PARTS})
# Keys of a database as a whole, or of its primary only.
NOT_FOR_REPLICA: Final = (
    "replicas",
    "shards",
    "read_your_writes",
    "replica_max_lag",
    "replica_fallback",
    "fast_begin",
    "protected",
    "expire_on_commit",
    "autoflush",
    "isolation_level",
)
_OFF: Final = frozenset({"off", "false", "no"})
# A standby is not a primary: if inherited, this would reject every replica.
_FOR_PRIMARY: Final = "target_session_attrs"
# The primary's address in a query: it would override the `host` of a replica, which would read from the primary.
_WHERE: Final = frozenset({"host", "hostaddr", "port", "unix_socket", "service"})


def switched_off(value: Any) -> bool:
    """Return whether `replicas: off`, or DBCONFIG_REPLICAS=off, is set."""
    raw = plain(value)
    return raw is False or (isinstance(raw, str) and raw.lower() in _OFF)


def completed(data: Any, *, is_replica: bool) -> Any:
    """Return the data of a database, or of one of its replicas, with implied values filled in.

    Raises:
        PydanticCustomError: a replica has a key that only a database can have; or `replicas` or the connect timeout is
            invalid.
    """
    if not isinstance(data, Mapping):
        return data
    if is_replica:
        _refuse_foreign(data)
    return driver_timeouts.settled(inherit(data) if "replicas" in data else data)


def inherit(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a database, with the inherited values of its replicas filled in.

    Raises:
        PydanticCustomError: `replicas` is not a list of mappings, or the database cannot have any.
    """
    own = {key: value for key, value in data.items() if key != "replicas"}
    written = data["replicas"]
    if switched_off(written):
        return own
    items = written.items if isinstance(written, SequenceNode) else written
    kinds = (Mapping, MappingNode, BaseModel)
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, kinds) for item in items):
        help = "replicas: [{host: db2}, {host: db3, weight: 2}]"
        raise reject("wrong-type", "must be a list of what differs from the primary, or off", help, ("replicas",))
    address = _parts(own)
    if address is None:
        return own  # the primary's address is invalid: that is reported, and cannot be inherited
    if items and _is_sqlite(address):
        message = "`replicas` has no effect on SQLite: it is a file"
        because = "drivername" if "drivername" in own else "url"
        raise reject_all([Finding("not-applicable", message, "remove it", ("replicas",), because=because)])
    shared = {key: value for key, value in own.items() if key not in _ADDRESS and key not in NOT_FOR_REPLICA}
    found: list[Any] = []
    for item in items:
        if isinstance(item, (Mapping, MappingNode)):
            says = _entries(item)
            found.append({**driver_timeouts.beneath({**shared, **_completed(address, says)}, says), **says})
        else:
            found.append(item)
    return {**own, "replicas": tuple(found)}


def _entries(item: Any) -> dict[str, Any]:
    return {key: entry.node for key, entry in item.entries.items()} if isinstance(item, MappingNode) else dict(item)


def _refuse_foreign(data: Mapping[str, Any]) -> None:
    findings = [
        Finding(
            "not-applicable",
            f"`{key}` applies to a database, not to a replica",
            "move it next to `replicas`",
            (key,),
        )
        for key in data  # these are not inherited from a primary
        if key in NOT_FOR_REPLICA
    ]
    if findings:
        raise reject_all(findings)


def _parts(own: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an address, in any notation, as its parts."""
    found = {key: own[key] for key in _PARTS if key in own}
    query = dict(plain(own.get("query")) or {})
    if "url" in own:
        url = parsed_url(own["url"])
        if url is None:
            return None
        found = {key: getattr(url, key) for key in _PARTS if getattr(url, key)} | found
        query = {**url.query, **query}
    return {**found, "query": {key: value for key, value in query.items() if key != _FOR_PRIMARY}}


def _is_sqlite(address: Mapping[str, Any]) -> bool:
    try:
        return backend_of(str(plain(address.get("drivername")))) == "sqlite"
    except ValueError:
        return False  # reported when the system is validated


def _completed(address: Mapping[str, Any], says: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the primary's address that a replica inherits."""
    if "url" not in says:
        if says.get("host") is None:
            return dict(address)
        return {**address, "query": {key: value for key, value in address["query"].items() if key not in _WHERE}}
    url = parsed_url(says["url"])
    # A URL sets its own host, and its own port or the default one; the user is usually the same.
    return {
        key: value
        for key, value in address.items()
        if key not in ("drivername", "host", "port", "query") and (url is None or getattr(url, key) is None)
    }
