"""One host or several, `host:port`."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from dbconfig.errors.printable import quoted
from dbconfig.settings import value_types
from dbconfig.settings.findings import reject
from dbconfig.settings.url_parsing import HOST_NAME

_HOSTS_AT_MOST: Final = 32  # each may cost a connect_timeout


def hosts(value: Any) -> str | tuple[str, ...]:
    """Take one host, or a list of hosts that are tried in turn, each with or without a port of its own."""
    raw = value_types.plain(value)
    if not isinstance(raw, (list, tuple)):
        return host(value)
    if not 0 < len(raw) <= _HOSTS_AT_MOST:
        raise reject("invalid-value", f"must name between one and {_HOSTS_AT_MOST} hosts")
    return tuple(_host_and_port(one) for one in raw)


def _host_and_port(item: Any) -> str:
    if not isinstance(item, str):
        raise reject("wrong-type", "each host must be text", "[db1.internal, 'db2.internal:5433']")
    name, colon, port = item.rpartition(":")
    if not colon or (":" in name and not name.endswith("]")):  # an IPv6 address without a port
        return host(item)
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise reject("out-of-range", "what follows the `:` of a host must be a port between 1 and 65535")
    try:
        found = host(name)
    except PydanticCustomError:
        raise reject("invalid-value", "one of the hosts is no `host` or `host:port`") from None
    return f"[{found}]:{port}" if ":" in found else f"{found}:{port}"


def separated(hosts: tuple[str, ...], port: int) -> tuple[str, str]:
    """Return hosts and ports as libpq writes them: two lists with commas."""
    names, ports = [], []
    for each in hosts:
        name, colon, own = each.rpartition(":")
        if not colon or (":" in name and not name.endswith("]")):
            name, own = each, str(port)
        names.append(name.strip("[]"))
        ports.append(own)
    return ",".join(names), ",".join(ports)


Hosts = Annotated[str | tuple[str, ...], BeforeValidator(hosts)]


def host(value: Any) -> str:
    raw = value_types.name(value)
    if "://" in raw:
        raise reject("invalid-value", "is a URL, not a host", "a URL belongs under `url:`")
    if raw.startswith("/"):
        return raw  # the folder of PostgreSQL's socket
    bare = raw[1:-1] if raw.startswith("[") and raw.endswith("]") else raw
    try:
        return str(ipaddress.ip_address(bare.partition("%")[0])) + bare[len(bare.partition("%")[0]) :]
    except ValueError:
        pass
    if not HOST_NAME.fullmatch(raw):
        wrong = next((ch for ch in raw if not (ch.isalnum() or ch in "-._")), "")
        help = {
            ":": "the port has a key of its own: `port`",
            "/": "the database has a key of its own: `database`",
            "@": "`username` and `password` have keys of their own",
        }
        raise reject(
            "invalid-value",
            f"is no host name{': it has a character ' + quoted(wrong) if wrong else ''}",
            help.get(wrong, ""),
        )
    return raw


Host = Annotated[str, BeforeValidator(host)]
