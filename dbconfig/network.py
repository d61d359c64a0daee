"""Which keys can act together on the way to the server: TLS, and a PgBouncer before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dbconfig.findings import Finding

if TYPE_CHECKING:
    from dbconfig.settings import DatabaseSettings

_FILES: Final = ("sslrootcert", "sslcert", "sslkey")
_VERIFYING: Final = ("verify-ca", "verify-full")
# Arguments that would prepare statements on a server connection that the next transaction does not have.
_PREPARING: Final = ("prepare_threshold", "statement_cache_size", "prepared_statement_cache_size")
_NEVER: Final = ("prepare_threshold", None)
_IN_TRANSACTION: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_timeout", "variables")


def system_key(settings: DatabaseSettings) -> str:
    """Return the key that says which database system it is."""
    return "drivername" if settings.drivername is not None else "url"


def applicable_tls(settings: DatabaseSettings) -> Iterator[Finding]:
    """Yield what is wrong with `sslmode` and its files."""
    given = [key for key in ("sslmode", *_FILES) if getattr(settings, key) is not None]
    if settings.backend == "sqlite":
        for key in given:
            message = f"`{key}` cannot act on SQLite: there is no network"
            yield Finding("not-applicable", message, "remove it", (key,), because=system_key(settings))
        return
    query = settings.url.query if settings.url is not None else {}
    for where, names in (("connect_args", settings.connect_args), ("query", settings.query), ("url", query)):
        for name in names if given else ():
            if name.startswith("ssl"):
                message = f"{name!r} is TLS by the driver's own words, beside `{given[0]}`"
                at = (where,) if where == "url" else (where, name)
                yield Finding("given-twice", message, "remove one of the two", at)
    yield from _files(settings)


def _files(settings: DatabaseSettings) -> Iterator[Finding]:
    mode = settings.sslmode
    if mode in _VERIFYING and settings.sslrootcert is None:
        help = "`sslrootcert: system` trusts the authorities of the machine, a file only those in it"
        yield Finding("missing-value", f"`sslmode: {mode}` needs `sslrootcert`: whom to trust", help, ("sslmode",))
    if settings.sslrootcert is not None and mode not in _VERIFYING:
        # libpq verifies with `require` if there is such a file, other drivers do not: say what is meant.
        message = "`sslrootcert` acts with `sslmode: verify-ca` or `verify-full`"
        yield Finding("not-applicable", message, "write `sslmode: verify-full`", ("sslrootcert",), because="sslmode")
    if settings.sslrootcert == "system" and mode == "verify-ca":
        message = "`sslrootcert: system` with `verify-ca` would take anybody with a certificate for the server"
        yield Finding("invalid-value", message, "write `sslmode: verify-full`", ("sslmode",))
    if (settings.sslcert is None) != (settings.sslkey is None):
        key, other = ("sslcert", "sslkey") if settings.sslcert is not None else ("sslkey", "sslcert")
        yield Finding("missing-value", f"`{key}` needs `{other}`", at=(key,))
    if settings.sslcert is not None and mode in (None, "disable", "prefer"):
        message = "`sslcert` needs TLS: `sslmode` must be `require`, `verify-ca` or `verify-full`"
        yield Finding("not-applicable", message, at=("sslcert",), because="sslmode")


def applicable_to_pgbouncer(settings: DatabaseSettings) -> Iterator[Finding]:
    """Yield what cannot work when each transaction may run on another server connection."""
    if not settings.pgbouncer:
        return
    if settings.backend != "postgresql":
        message = f"`pgbouncer` cannot act on {settings.backend}: it stands before PostgreSQL"
        yield Finding("not-applicable", message, "remove it", ("pgbouncer",), because=system_key(settings))
        return
    for key in ("connect_args", "query"):
        if "options" in getattr(settings, key):
            yield _refused(f"{key}.options", "PgBouncer refuses startup options", "write them into `variables`")
    if settings.url is not None and "options" in settings.url.query:
        yield _refused("url", "PgBouncer refuses startup options, and the URL has `options`", "write `variables`")
    for name in _PREPARING:
        if name in settings.connect_args and (name, settings.connect_args[name]) != _NEVER:
            why = f"{name!r} would prepare statements on a server connection that the next transaction does not have"
            yield _refused(f"connect_args.{name}", why, "remove it")
    for name in settings.variables:
        if name.lower() == "default_transaction_isolation":
            why = f"{name!r} is for the next transaction, and behind PgBouncer it would be set inside each"
            yield _refused(f"variables.{name}", why, "write it as `isolation_level`")
    if settings.isolation_level == "AUTOCOMMIT" or settings.execution_options.get("isolation_level") == "AUTOCOMMIT":
        for key in _IN_TRANSACTION:
            if getattr(settings, key):
                why = f"`{key}` is set in each transaction behind PgBouncer, and AUTOCOMMIT has none"
                yield _refused(key, why, "let the server's administrator set it: ALTER ROLE … SET …")


def _refused(path: str, message: str, help: str) -> Finding:
    return Finding("not-applicable", message, help, tuple(path.split(".")), because="pgbouncer")
