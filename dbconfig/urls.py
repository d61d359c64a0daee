"""A database URL as its parts, read strictly: nothing in it can be taken for something else than was meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from dbconfig.drivers import backend_of
from dbconfig.redaction import MASK, is_secret_name
from dbconfig.secrets import Secret

_SCHEME = re.compile(r"([A-Za-z][\w.-]*(?:\+[\w.-]*)?)://", re.ASCII)
_HOST_PORT = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]*))?", re.ASCII)
_ESCAPE = "percent-encode it (@ is %40, : %3A, / %2F, ? %3F, # %23, % %25), or use the keys `username`, `password`, `host` …, or ${VAR}, which is encoded for you"
# What opens a hole, or says again what has a key of its own.
_REFUSED = {
    "plugin": "a plugin is code, and configuration never names code",
    "password": "`password` is a key of its own",
    "passwd": "`password` is a key of its own",
    "user": "`username` is a key of its own",
    "username": "`username` is a key of its own",
    "dbname": "`database` is a key of its own",
    "database": "`database` is a key of its own",
    "db": "`database` is a key of its own",
}


class InvalidURL(ValueError):
    """Not a database URL; the text never repeats a part that may be secret.

    Attributes:
        slug: the problem's name in the catalogue.
        help: what to write instead.
    """

    def __init__(self, message: str, help: str = "", slug: str = "invalid-url") -> None:
        super().__init__(message)
        self.help = help
        self.slug = slug


@dataclass(frozen=True, slots=True)
class DatabaseURL:
    """The parts of a URL, decoded. `str()` masks what is secret."""

    drivername: str
    username: str | None = None
    password: Secret | None = None
    host: str | None = None
    port: int | None = None
    database: str | None = None
    query: Mapping[str, tuple[str | Secret, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        user = (
            f"{self.username or ''}:{MASK}@"
            if self.password is not None
            else f"{self.username}@"
            if self.username
            else ""
        )
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ""
        port = f":{self.port}" if self.port is not None else ""
        pairs = [
            f"{name}={MASK if is_secret_name(name) else value}"
            for name, values in self.query.items()
            for value in values
        ]
        return f"{self.drivername}://{user}{host}{port}{'/' + self.database if self.database else ''}{'?' + '&'.join(pairs) if pairs else ''}"

    __repr__ = __str__

    def without(self, part: str) -> DatabaseURL:
        """Return the address without one of its parts."""
        changes: dict[str, Any] = {part: "" if part == "drivername" else None}
        return replace(self, **changes)


def parse_url(text: str) -> DatabaseURL:
    """Return the parts of a URL such as a provider's console or a `DATABASE_URL` has it.

    Blanks, line ends and a pair of quotes around it are dropped: they come from `.env` files and copied commands.

    Raises:
        InvalidURL: it is none, or a character in it could belong to two parts.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    if not text:
        raise InvalidURL("it is empty", "sqlite:///data/app.db or postgresql://user@host/database", "missing-value")
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise InvalidURL(
            "it has no scheme: no `postgresql://`, `mysql://` or `sqlite:///` at its beginning",
            "write scheme://user@host/database",
        )
    try:
        backend = backend_of(scheme[1])
    except ValueError as error:
        raise InvalidURL(str(error), "write sqlite:///file, postgresql://… or mysql://…", "unknown-dialect") from None
    rest = text[scheme.end() :]
    if any((ch.isspace() and ch != " ") or not ch.isprintable() for ch in rest) or (
        " " in rest and backend != "sqlite"
    ):
        raise InvalidURL("it has a blank or a control character in it", _ESCAPE)
    return _sqlite(scheme[1], rest) if backend == "sqlite" else _server(scheme[1], rest)


def _sqlite(drivername: str, rest: str) -> DatabaseURL:
    path, _, query = rest.partition("?")
    if path and not path.startswith("/"):
        raise InvalidURL(
            "a SQLite URL has three slashes before a relative path, four before an absolute one",
            "sqlite:///data/app.db, sqlite:////srv/app.db",
        )
    return DatabaseURL(drivername, database=_decoded(path[1:]) or None, query=_query(query))


def _server(drivername: str, rest: str) -> DatabaseURL:
    if "#" in rest:
        raise InvalidURL("a `#` in a URL ends it; in a password it must be encoded", _ESCAPE)
    address, question, query = rest.partition("?")
    authority, _, database = address.partition("/")
    if (
        authority.count("@") > 1
        or "@" in database
        or (question and not authority.count("@") and "@" in query.split("=")[0])
    ):
        raise InvalidURL(
            "a character of the user name or password is not encoded: it is not clear where the host begins", _ESCAPE
        )
    userinfo, _, address = authority.rpartition("@")
    username, colon, password = userinfo.partition(":")
    host, port = _host(address)
    return DatabaseURL(
        drivername,
        _decoded(username) or None,
        Secret("text", _decoded(password)) if colon and password else None,
        host,
        port,
        _decoded(database) or None,
        _query(query),
    )


def _host(address: str) -> tuple[str | None, int | None]:
    if "," in address:
        raise InvalidURL("it names several hosts", "write them into the query: ?host=one:5432&host=two:5432")
    match = _HOST_PORT.fullmatch(address)
    if match is None or (match["port"] is None and ":" in address and match["six"] is None):
        raise InvalidURL(
            "what follows the user name is no `host:port`; a special character of the password may not be encoded",
            _ESCAPE,
        )
    host = match["six"] if match["six"] is not None else _decoded(match["host"])
    if match["port"] == "":
        raise InvalidURL("the port after the `:` is empty", "write the port, or leave the colon out")
    if match["port"] and not 0 < int(match["port"][:9]) < 65536:
        raise InvalidURL("its port is not between 1 and 65535", slug="out-of-range")
    return host or None, int(match["port"]) if match["port"] else None


def _query(query: str) -> dict[str, tuple[str | Secret, ...]]:
    found: dict[str, list[str | Secret]] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not name or not equals or not value:
            raise InvalidURL(
                "its query has a parameter without a value, or a `?` or `&` that belongs to the password",
                f"?name=value&name=value; {_ESCAPE}",
            )
        check_query_name(name)
        text = _decoded(value.replace("+", " "))
        found.setdefault(name, []).append(Secret("text", text) if is_secret_name(name) else text)
    return {name: tuple(values) for name, values in found.items()}


def check_query_name(name: str) -> None:
    """Raise InvalidURL for a parameter that a URL may not carry."""
    if name in _REFUSED:
        raise InvalidURL(f"its query has the parameter {name!r}: {_REFUSED[name]}")


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidURL("a `%` in it is not followed by two hexadecimal digits", _ESCAPE)
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidURL("it encodes characters that are not UTF-8", _ESCAPE) from None
