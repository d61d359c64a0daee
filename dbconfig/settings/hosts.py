"""Hosts: one or several, with or without a port, in a key, a URL, or its parameters."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.printable import quoted
from dbconfig.settings import value_types
from dbconfig.settings.findings import reject

NAME: Final = late_pattern(r"[^\W_](?:[\w.-]{0,251}\w)?\.?")
LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HOSTS_AT_MOST: Final = 32  # each is queried by a separate thread or task
_HOST_PORT: Final = late_pattern(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?P<port>:[0-9]*)?", re.ASCII)


def split(text: str) -> tuple[str, str | None] | None:
    """Return host and port of `host:port`, without an IPv6 address's brackets; None if it is not of this form.

    >>> split("db:5433"), split("db"), split("db:"), split("[::1]:5433"), split("::1")
    (('db', '5433'), ('db', None), ('db', ''), ('::1', '5433'), None)
    """
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        return None
    host = match["host"] if match["six"] is None else match["six"]
    return host, None if match["port"] is None else match["port"][1:]


def is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def joined(host: str, port: object = None) -> str:
    """Return a host and its port as one text, an IPv6 address in brackets."""
    return (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")


def is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text[:9]) < 65536


def servers(
    host: str | None, port: int | None, query: Mapping[str, tuple[Any, ...]], usual: int
) -> list[tuple[str, int]]:
    """Return the host and port of each server in an address; a folder contains a socket.

    PostgreSQL's URLs may name several: `?host=one:5432&host=two`, or `?host=one,two&port=5432,5433`.
    """
    names = [each for text in query.get("host", ()) for each in str(text).split(",")] or [host or ""]
    ports = [each for text in query.get("port", ()) for each in str(text).split(",")] or [str(port or usual)]
    found = []
    for number, name in enumerate(names):
        bare, own = (name, None) if name.startswith("/") or is_ipv6(name) else split(name) or (name, None)
        text = own or ports[min(number, len(ports) - 1)]
        found.append((bare, int(text) if is_port(text) else usual))
    return found


def with_ports(query: Mapping[str, tuple[Any, ...]], usual: int) -> dict[str, tuple[str, ...]]:
    """Return the hosts and ports of a URL's parameters with a port for each host, as SQLAlchemy's dialects require.

    libpq accepts one port for all of the hosts, or none.
    """
    found = servers(None, usual, query, usual)
    names, ports = ",".join(name for name, _ in found), ",".join(str(port) for _, port in found)
    return {"host": (names,), "port": (ports,)}


def ports_at_fault(query: Mapping[str, tuple[Any, ...]]) -> str:
    """Return what is wrong with the ports of a URL's parameters; "" if nothing is.

    >>> ports_at_fault({"host": ("a,b,c",), "port": ("1,2",)}), ports_at_fault({"host": ("a:1", "b"), "port": ("2",)})
    ('it names 2 ports for 3 hosts', '')
    """
    names = [each for text in query.get("host", ()) for each in str(text).split(",")] or [""]
    ports = [each for text in query.get("port", ()) for each in str(text).split(",")]
    own = [(split(name) or ("", name.rpartition(":")[2]))[1] for name in names if name[:1] != "/" and not is_ipv6(name)]
    wrong = next((port for port in (*own, *ports) if port and not is_port(port)), None)
    if wrong is not None:
        return f"{quoted(wrong)} is not a port between 1 and 65535"
    if len(ports) > 1 and len(ports) != len(names):
        return f"it names {len(ports)} ports for {len(names)} host{'s' if len(names) > 1 else ''}"
    return ""


def separated(hosts: tuple[str, ...], port: int) -> tuple[str, str]:
    """Return hosts and ports in libpq's notation: two comma-separated lists."""
    found = with_ports({"host": hosts}, port)
    return found["host"][0], found["port"][0]


def host(value: Any) -> str:
    raw = value_types.name(value)
    if "://" in raw:
        raise reject("invalid-value", "is a URL, not a host", "a URL belongs under `url:`")
    if raw.startswith("/"):
        return raw  # the folder of PostgreSQL's socket, or MySQL's socket
    bare = raw[1:-1] if raw.startswith("[") and raw.endswith("]") else raw
    address, zone = bare.partition("%")[0], bare.partition("%")[1:]
    try:
        return str(ipaddress.ip_address(address)) + "".join(zone)
    except ValueError:
        pass
    if not NAME.fullmatch(raw):
        wrong = next((ch for ch in raw if not (ch.isalnum() or ch in "-._")), "")
        help = {
            ":": "the port has a key of its own: `port`",
            "/": "the database has a key of its own: `database`",
            "@": "`username` and `password` have keys of their own",
            ",": "several hosts are a list: [one, two]",
        }
        said = f"is not a host name{': it contains ' + quoted(wrong) if wrong else ''}"
        raise reject("invalid-value", said, help.get(wrong, ""))
    return raw


def hosts(value: Any) -> str | tuple[str, ...]:
    """Accept one host, or a list in which the primary is searched for, each with or without its own port."""
    raw = value_types.plain(value)
    if not isinstance(raw, (list, tuple)):
        return host(value)
    if not 0 < len(raw) <= _HOSTS_AT_MOST:
        raise reject("invalid-value", f"must name between one and {_HOSTS_AT_MOST} hosts")
    found = tuple(_host_and_port(one) for one in raw)
    twice = next((one for number, one in enumerate(found) if one in found[:number]), None)
    if twice is not None:
        raise reject("invalid-value", f"names {quoted(twice)} twice", "name each server once")
    return found


def _host_and_port(item: Any) -> str:
    if not isinstance(item, str):
        raise reject("wrong-type", "each host must be text", "[db1.internal, 'db2.internal:5433']")
    name, port = split(item) or (item.rpartition(":")[::2] if item.count(":") == 1 else (item, None))
    if port is None:
        return host(item)
    if not is_port(port):
        raise reject("out-of-range", "what follows the `:` of a host must be a port between 1 and 65535")
    try:
        return joined(host(name), port)
    except PydanticCustomError:
        raise reject("invalid-value", "one of the hosts is not a `host` or `host:port`") from None


Hosts = Annotated[str | tuple[str, ...], BeforeValidator(hosts)]
