"""Settings that accept one of a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from dbconfig.errors.light_dataclass import dataclass
from dbconfig.errors.printable import did_you_mean, suggest
from dbconfig.settings.findings import reject
from dbconfig.settings.known_drivers import backend_of
from dbconfig.settings.value_types import flag, name, plain


@dataclass(frozen=True, slots=True, eq=False)
class FlagOr:
    """A validator for a boolean or one of some words."""

    words: tuple[str, ...]

    def __call__(self, value: Any) -> bool | str:
        raw = plain(value)
        if isinstance(raw, str) and raw.lower() in self.words:
            return raw.lower()
        try:
            return flag(value)
        except PydanticCustomError:
            raise reject("invalid-value", f"must be true, false or {' or '.join(self.words)}") from None


def flag_or(*words: str) -> FlagOr:
    return FlagOr(words)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A validator for one of some words, in any case; `also` maps further values to them."""

    options: tuple[str, ...]
    also: Mapping[Any, str | None]

    def __call__(self, value: Any) -> str | None:
        raw = plain(value)
        if not isinstance(raw, (list, dict)) and raw in self.also:
            return self.also[raw]
        by_lower = {option.lower(): option for option in self.options}
        if isinstance(raw, str) and raw.lower() in by_lower:
            return by_lower[raw.lower()]
        near = suggest(raw.lower(), by_lower) if isinstance(raw, str) else ""
        help = did_you_mean(by_lower.get(near, ""))
        raise reject("invalid-value", f"must be one of {', '.join(self.options)}", help)


def choice(*options: str, also: Mapping[Any, str | None] | None = None) -> Choice:
    return Choice(options, also or {})


POOL_CLASSES: Final = ("QueuePool", "NullPool", "StaticPool", "SingletonThreadPool", "AssertionPool")


# https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS; libpq's `allow` is not accepted,
# since it prefers not to encrypt.
SSL_MODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")
LIBPQ_SSL_MODES: Final = (*SSL_MODES, "allow")


Echo = Annotated[bool | Literal["debug"], BeforeValidator(flag_or("debug"))]


PoolClass = Annotated[str, BeforeValidator(choice(*POOL_CLASSES))]


Reset = Annotated[
    str | None,
    BeforeValidator(
        choice("rollback", "commit", "discard", also={True: "rollback", False: None, None: None, "none": None})
    ),
]


SessionReset = Annotated[str, BeforeValidator(choice("rollback", "discard"))]


ParamStyle = Annotated[str, BeforeValidator(choice("qmark", "named", "format", "pyformat", "numeric_dollar"))]


SSLMode = Annotated[str, BeforeValidator(choice(*SSL_MODES))]


def drivername(value: Any) -> str:
    raw = name(value)
    if "://" in raw:
        raise reject("invalid-value", "is a URL, not the name of a driver", "a URL belongs under `url:`")
    try:
        backend_of(raw)
    except ValueError as error:
        raise reject(
            "unknown-dialect",
            f"the driver of a database: {error}",
            "postgresql, mysql, mariadb or sqlite, with or without `+driver`",
        ) from None
    return raw.lower()


DriverName = Annotated[str, BeforeValidator(drivername)]
