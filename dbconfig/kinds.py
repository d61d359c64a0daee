"""The types of settings that are one of some words, and of those that are a word or a list."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from dbconfig import values
from dbconfig.choices import choice, flag_or
from dbconfig.findings import reject

POOL_CLASSES: Final = ("QueuePool", "NullPool", "StaticPool", "SingletonThreadPool", "AssertionPool")
# https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS; libpq's `allow` is left out: it
# prefers not to encrypt.
SSL_MODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")
_HOSTS_AT_MOST: Final = 32  # each may cost a connect_timeout


def hosts(value: Any) -> str | tuple[str, ...]:
    """Take one host, or a list of hosts that are tried in turn, each with or without a port of its own."""
    raw = values.plain(value)
    if not isinstance(raw, (list, tuple)):
        return values.host(value)
    if not 0 < len(raw) <= _HOSTS_AT_MOST:
        raise reject("invalid-value", f"must name between one and {_HOSTS_AT_MOST} hosts")
    return tuple(_host_and_port(one) for one in raw)


def _host_and_port(item: Any) -> str:
    if not isinstance(item, str):
        raise reject("wrong-type", "each host must be text", "[db1.internal, 'db2.internal:5433']")
    name, colon, port = item.rpartition(":")
    if not colon or (":" in name and not name.endswith("]")):  # an IPv6 address without a port
        return values.host(item)
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise reject("out-of-range", "what follows the `:` of a host must be a port between 1 and 65535")
    try:
        found = values.host(name)
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


Echo = Annotated[bool | Literal["debug"], BeforeValidator(flag_or("debug"))]
PoolClass = Annotated[str, BeforeValidator(choice(*POOL_CLASSES))]
Reset = Annotated[
    str | None,
    BeforeValidator(choice("rollback", "commit", also={True: "rollback", False: None, None: None, "none": None})),
]
ParamStyle = Annotated[str, BeforeValidator(choice("qmark", "named", "format", "pyformat", "numeric_dollar"))]
SSLMode = Annotated[str, BeforeValidator(choice(*SSL_MODES))]
Hosts = Annotated[str | tuple[str, ...], BeforeValidator(hosts)]
