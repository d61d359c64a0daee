"""Database URLs split into their parts, strictly: ambiguous ones are rejected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import BeforeValidator

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import dataclass, field, replace
from dbconfig.errors.printable import quoted
from dbconfig.errors.redaction import MASK, is_secret_name, shown_name
from dbconfig.settings import hosts, value_types
from dbconfig.settings.environment_variables import unexpanded
from dbconfig.settings.findings import reject
from dbconfig.settings.known_drivers import backend_of, is_generic
from dbconfig.settings.located_values import Scalar
from dbconfig.settings.secret_sources import Secret, bare, unusable

_SCHEME = late_pattern(r"([A-Za-z][\w.-]*(?:\+[\w.-]*)?)://", re.ASCII)
_ESCAPE = (
    "percent-encode it (@ is %40, : %3A, / %2F, ? %3F, # %23, % %25), "
    "or use the keys `username`, `password`, `host` …, or ${VAR}, which is encoded for you"
)
_PLACEHOLDER = late_pattern(
    r"[<\[{](?:your[-_ ]?)?(?:db[-_ ]?)?(?:user(?:[-_ ]?name)?|pass(?:word)?|host(?:name)?)[>\]}]", re.I
)
# Other pasted forms, by their beginning: a console's command, a JDBC URL, libpq's keywords.
_PASTED = (
    (late_pattern(r"jdbc:", re.I), "it is a JDBC URL", "remove `jdbc:`, and write user and password before the host"),
    (
        late_pattern(r"(?:psql|mysql|mariadb|export|set)\s", re.I),
        "it is a command, not only a URL",
        "remove the command",
    ),
    (
        late_pattern(r"\w+ ?=[\"' ]*[A-Za-z][\w+.-]*://"),
        "it begins with the name of a variable",
        "remove `NAME=` before the scheme",
    ),
    (
        late_pattern(r"\w+ ?= ?\S"),
        "it is a list of keywords, not a URL",
        "write them as the keys `host`, `port`, `database` …",
    ),
)
_UNEXPANDED = "set the variable to the whole URL; write a literal `$` as %24"
# Insecure parameters, and those that have a separate key.
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
_SEVERAL = frozenset({"host", "port", "hostaddr"})  # of PostgreSQL, one for each server


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
        place = hosts.joined((self.host or "").replace("/", "%2F"), self.port)
        pairs = [
            f"{name}={MASK if is_secret_name(name) else value}"
            for name, values in self.query.items()
            for value in values
        ]
        database = f"/{self.database}" if self.database else ""
        return f"{self.drivername}://{user}{place}{database}{'?' + '&'.join(pairs) if pairs else ''}"

    __repr__ = __str__

    @property
    def backend(self) -> str:
        """The database system: sqlite, postgresql, mysql or mariadb."""
        return backend_of(self.drivername)

    @property
    def in_memory(self) -> bool:
        """Whether this is SQLite without a file."""
        return self.backend == "sqlite" and self.database in (None, ":memory:")

    def without(self, part: str) -> DatabaseURL:
        """Return the address without one of its parts."""
        changes: dict[str, Any] = {part: "" if part == "drivername" else None}
        return replace(self, **changes)


def parse_url(text: str) -> DatabaseURL:
    """Return the parts of a URL, for example from a provider's console or a `DATABASE_URL`.

    Surrounding spaces, line ends, and quotes are dropped: they come from `.env` files and copied commands.

    Raises:
        InvalidURL: it is not a URL, or a character in it could belong to two parts.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    if not text:
        raise InvalidURL("it is empty", "sqlite:///data/app.db or postgresql://user@host/database", "missing-value")
    scheme = _SCHEME.match(text)
    if scheme is None:
        pasted = next(((what, help) for pattern, what, help in _PASTED if pattern.match(text)), None)
        if pasted is not None:
            raise InvalidURL(*pasted)
        raise InvalidURL(
            "it does not begin with a scheme: `postgresql://`, `mysql://`, or `sqlite:///`",
            "write scheme://user@host/database",
        )
    try:
        backend = backend_of(scheme[1])
    except ValueError as error:
        raise InvalidURL(str(error), "write sqlite:///file, postgresql://… or mysql://…", "unknown-dialect") from None
    rest = text[scheme.end() :]
    left = unexpanded(rest)
    if left:
        raise InvalidURL(f"its `${{{left}}}` is a reference that was not expanded", _UNEXPANDED, "bad-reference")
    # No other white space than " " is printable.
    if not rest.isprintable() or (" " in rest and backend != "sqlite"):
        raise InvalidURL("it contains a space or a control character", _ESCAPE)
    return _sqlite(scheme[1], rest) if backend == "sqlite" else _server(scheme[1], rest)


def _sqlite(drivername: str, rest: str) -> DatabaseURL:
    path, _, query = rest.partition("?")
    if path and not path.startswith("/"):
        raise InvalidURL(
            "a SQLite URL has three slashes before a relative path, four before an absolute one",
            "sqlite:///data/app.db, sqlite:////srv/app.db",
        )
    return DatabaseURL(drivername, database=_decoded(path[1:]) or None, query=_query(query, "sqlite"))


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
            "a character of the user name or password is not encoded: it is ambiguous where the host begins", _ESCAPE
        )
    userinfo, _, address = authority.rpartition("@")
    username, colon, password = userinfo.partition(":")
    if any(_PLACEHOLDER.fullmatch(part) for part in (username, password, address.partition(":")[0])):
        raise InvalidURL("it still contains a placeholder", "replace it with the real user, password, and host")
    host, port = _host(address)
    return DatabaseURL(
        drivername,
        _decoded(username) or None,
        Secret("text", _secret(password)) if colon and password else None,
        host,
        port,
        _decoded(database) or None,
        _query(query, backend_of(drivername)),
    )


def _host(address: str) -> tuple[str | None, int | None]:
    if "," in address:
        raise InvalidURL("it names several hosts", "write them into the query: ?host=one:5432&host=two:5432")
    found = hosts.split(address)
    if found is None:
        raise InvalidURL(
            "what follows the user name is not `host:port`: is a special character of the password not encoded?",
            "write an IPv6 address in brackets: [::1]" if address.count(":") > 1 else _ESCAPE,
        )
    host, port = _decoded(found[0]), found[1]
    if address.startswith("["):
        if not hosts.is_ipv6(host):
            raise InvalidURL("the text in brackets is not an IPv6 address", "[::1]")
    elif host and not host.startswith("/") and not hosts.NAME.fullmatch(host):
        raise InvalidURL("its host is not a host name", _ESCAPE)
    if port == "":
        raise InvalidURL("the port after the `:` is empty", "write the port, or remove the colon")
    if port is not None and not hosts.is_port(port):
        raise InvalidURL("its port is not between 1 and 65535", slug="out-of-range")
    return host or None, int(port) if port else None


def _query(query: str, backend: str) -> dict[str, tuple[str | Secret, ...]]:
    found: dict[str, list[str | Secret]] = {}
    if "?" in query:
        raise InvalidURL("it has two `?`: a second parameter follows an `&`", "?name=value&name=value")
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not name or not equals or not value:
            raise InvalidURL(
                "its query has a parameter without a value, or a `?` or `&` that belongs to the password",
                f"?name=value&name=value; {_ESCAPE}",
            )
        check_query_name(name)
        if name in found and name not in _SEVERAL and not is_generic(backend):
            said = f"its query has the parameter {quoted(shown_name(name))} twice"
            raise InvalidURL(said, "remove one of the two", "given-twice")
        value = value.replace("+", " ")
        one: str | Secret = Secret("text", _secret(value)) if is_secret_name(name) else _decoded(value)
        found.setdefault(name, []).append(one)
    return {name: tuple(values) for name, values in found.items()}


def check_query_name(name: str) -> None:
    """Raise InvalidURL for a parameter that a URL may not carry."""
    if name in _REFUSED:
        raise InvalidURL(f"its query has the parameter {name!r}: {_REFUSED[name]}")


def _secret(text: str) -> str:
    secret = bare(_unquoted(text))
    if not secret or unusable(secret):
        raise InvalidURL(f"its password: {unusable(secret) or 'it is empty'}")
    return secret


def _decoded(text: str) -> str:
    decoded = _unquoted(text)
    if not decoded.isprintable():
        raise InvalidURL("it encodes a line break or another control character", "remove it")
    return decoded


def _unquoted(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidURL("a `%` in it is not followed by two hexadecimal digits", _ESCAPE)
    decoded = unquote(text, errors="surrogateescape")
    if any("\ud800" <= ch <= "\udfff" for ch in decoded):
        raise InvalidURL("it encodes characters that are not UTF-8", _ESCAPE)
    return decoded


def database_url(value: Any) -> DatabaseURL:
    if isinstance(value, DatabaseURL):
        return value
    raw = value_types.plain(value)
    if isinstance(raw, DatabaseURL):
        return raw
    try:
        address = parse_url(value_types.text(value))
    except InvalidURL as error:
        message = f"not a database URL: {error}" if error.slug == "invalid-url" else str(error)
        raise reject(error.slug, message, error.help) from None
    if isinstance(value, Scalar) and address.password is not None:
        password = Secret("text", address.password.read(), value.location, written=not value.variables)
        return replace(address, password=password)
    return address


def parsed_url(value: Any) -> DatabaseURL | None:
    """Return the parts of an unvalidated URL; None if it is invalid, which its own field reports."""
    raw = value_types.plain(value)
    try:
        return raw if isinstance(raw, DatabaseURL) else parse_url(raw) if isinstance(raw, str) else None
    except InvalidURL:
        return None


def query(value: Any) -> dict[str, tuple[str | Secret, ...]]:
    found: dict[str, tuple[str | Secret, ...]] = {}
    for key, item in value_types.mapping(value).items():
        items = item if isinstance(item, (list, tuple)) else (item,)
        texts = (one.read() if isinstance(one, Secret) else one for one in items)
        if not all(isinstance(one, (str, int)) and not isinstance(one, bool) for one in texts):
            raise reject(
                "wrong-type",
                f"{quoted(key)} must be text or a number, or a list of them",
                "put booleans into `connect_args`",
                (key,),
            )
        try:
            check_query_name(key)
        except InvalidURL as error:
            raise reject("given-twice", str(error).removeprefix("its "), at=(key,)) from None
        found[key] = tuple(one if isinstance(one, Secret) else str(one) for one in items)
    return found


URL = Annotated[DatabaseURL, BeforeValidator(database_url), value_types.Shown(str)]
Query = Annotated[
    dict[str, tuple[str | Secret, ...]], BeforeValidator(query), value_types.Shown(value_types.shown_mapping)
]
