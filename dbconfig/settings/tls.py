"""TLS for every driver in libpq's terms: `sslmode` and its files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dbconfig.errors import ConfigError
from dbconfig.errors.printable import printable
from dbconfig.errors.problem import Problem
from dbconfig.settings import small_files
from dbconfig.settings.findings import Finding
from dbconfig.settings.keys import Keys, system_key

if TYPE_CHECKING:
    from ssl import SSLContext

_log = logging.getLogger("dbconfig.tls")

SYSTEM: Final = "system"  # as `sslrootcert`: the CAs that the operating system trusts
VERIFYING: Final = ("verify-ca", "verify-full")
_FILES: Final = ("sslrootcert", "sslcert", "sslkey")
_FILES_OF_DRIVERS: Final = frozenset({*_FILES, "sslcrl", "ssl_ca", "ssl_cert", "ssl_key"})
# Their locations, for drivers that need one file.
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def parameters(settings: Keys) -> dict[str, str]:
    """Return the settings under libpq's names; files as absolute paths."""
    found = {"sslmode": settings.sslmode} if settings.sslmode is not None else {}
    for key in _FILES:
        value = getattr(settings, key)
        if value is not None:
            found[key] = value if value == SYSTEM else str((settings.folder or Path()) / value)
    return found


def mode(settings: Keys, given: Mapping[str, Any], backend: str) -> str:
    """Return the effective `sslmode` of a profile; `given` is its parameters and its driver's arguments."""
    if settings.sslmode is not None:
        return settings.sslmode
    if backend == "postgresql":
        found = given.get("sslmode", given.get("ssl", ""))  # `ssl` is a driver's own parameter
        return str(found[0] if isinstance(found, tuple) else found)
    names = ("ssl_ca", "ssl_capath", "ssl_verify_cert", "ssl_verify_identity", "ssl")
    return "verify-ca" if any(given.get(name) not in (None, False) for name in names) else ""


def check_files(settings: Keys) -> None:
    """Detect missing files early, and warn about a key that others can read.

    Raises:
        ConfigError: a certificate or a key cannot be read.
    """
    problems = [*_unusable_files_of_the_driver(settings)]
    for key, path in parameters(settings).items():
        if key == "sslmode" or path == SYSTEM:
            continue
        wrong = small_files.check(Path(path), small_files.CERTIFICATES)
        if wrong:
            message = f"{key}: {printable(path, 300)}: {wrong}"
            problems.append(Problem("file-unreadable", message, settings.origin(key), key))
        elif key == "sslkey" and small_files.readable_by_others(Path(path)):
            _log.warning(
                "key file %s is readable by other users: set its permissions to 600", path, extra={"file": str(path)}
            )
        elif small_files.writable_by_others(Path(path)):
            _log.warning(
                "%s file %s can be written or replaced by other users", key, path, extra={"file": str(path), "key": key}
            )
    if problems:
        raise ConfigError(problems)


def _unusable_files_of_the_driver(settings: Keys) -> Iterator[Problem]:
    """Yield certificates in the driver's own arguments whose reading would be unlimited, or would block.

    The driver reports missing ones: libpq does not need them in some modes.
    """
    of_url = settings.url.query if settings.url is not None else {}
    places: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("url", of_url),
        ("query", settings.query),
        ("connect_args", settings.connect_args),
    )
    for where, given in places:
        for name in _FILES_OF_DRIVERS & given.keys():
            path: Any = given[name][-1] if isinstance(given[name], tuple) else given[name]
            wrong = small_files.check(Path(path), small_files.CERTIFICATES) if isinstance(path, str) else ""
            if wrong and Path(path).exists():
                key = where if where == "url" else f"{where}.{name}"
                message = f"{name}: {printable(path, 300)}: {wrong}"
                yield Problem("file-unreadable", message, settings.origin(key), key)


def bundle(settings: Keys) -> str:
    """Return the file of the CAs that the operating system trusts.

    Raises:
        ConfigError: none is known.
    """
    import ssl

    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, *_BUNDLES):
        if path is not None and os.access(path, os.R_OK):
            return path
    message = "sslrootcert: the certificates of the operating system were not found"
    help = "install them (ca-certificates), or name the file of your provider's"
    raise ConfigError([Problem("file-unreadable", message, settings.origin("sslrootcert"), "sslrootcert", help)])


def context(settings: Keys) -> SSLContext:
    """Return the context of `require`, `verify-ca` or `verify-full`, for drivers that do not know libpq.

    Raises:
        ConfigError: a file is not a certificate, or not a key.
    """
    import ssl

    wanted = parameters(settings)
    verify = settings.sslmode in VERIFYING
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = settings.sslmode == "verify-full"
    found.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    key = "sslrootcert"
    try:
        if verify:
            root = wanted[key]
            found.load_verify_locations(bundle(settings) if root == SYSTEM else root)
        key = "sslcert"
        if key in wanted:
            found.load_cert_chain(wanted[key], wanted["sslkey"])
    except OSError as error:  # ssl.SSLError is one
        message = f"{key}: it cannot be used: {error.strerror or type(error).__name__}"
        raise ConfigError([Problem("file-unreadable", message, settings.origin(key), key)]) from error
    return found


def applicable_tls(settings: Keys, backend: str) -> Iterator[Finding]:
    """Yield the problems of `sslmode` and its files."""
    given = [key for key in ("sslmode", *_FILES) if getattr(settings, key) is not None]
    if backend == "sqlite":
        for key in given:
            message = f"`{key}` has no effect on SQLite: it does not use the network"
            yield Finding("not-applicable", message, "remove it", (key,), because=system_key(settings))
        return
    query = settings.url.query if settings.url is not None else {}
    for where, names in (("connect_args", settings.connect_args), ("query", settings.query), ("url", query)):
        for name in names if given else ():
            if name.startswith("ssl"):
                message = f"{name!r} sets TLS in the driver's own terms, in addition to `{given[0]}`"
                at = (where,) if where == "url" else (where, name)
                yield Finding("given-twice", message, "remove one of the two", at)
    yield from _files(settings)


def _files(settings: Keys) -> Iterator[Finding]:
    mode = settings.sslmode
    if mode in VERIFYING and settings.sslrootcert is None:
        help = "write `sslrootcert: system` for the authorities of the operating system, or the name of a file"
        yield Finding(
            "missing-value", f"`sslmode: {mode}` needs `sslrootcert`, the authorities to trust", help, ("sslmode",)
        )
    if settings.sslrootcert is not None and mode not in VERIFYING:
        # With such a file, libpq verifies even with `require`, but other drivers do not: require an explicit mode.
        message = "`sslrootcert` needs `sslmode: verify-ca` or `verify-full`"
        yield Finding("not-applicable", message, "write `sslmode: verify-full`", ("sslrootcert",), because="sslmode")
    if settings.sslrootcert == SYSTEM and mode == "verify-ca":
        message = "`sslrootcert: system` with `verify-ca` would accept any server with a certificate"
        yield Finding("invalid-value", message, "write `sslmode: verify-full`", ("sslmode",))
    if (settings.sslcert is None) != (settings.sslkey is None):
        key, other = ("sslcert", "sslkey") if settings.sslcert is not None else ("sslkey", "sslcert")
        yield Finding("missing-value", f"`{key}` needs `{other}`", at=(key,))
    if settings.sslcert is not None and mode in (None, "disable", "prefer"):
        message = "`sslcert` needs TLS: `sslmode` must be `require`, `verify-ca` or `verify-full`"
        yield Finding("not-applicable", message, at=("sslcert",), because="sslmode")
