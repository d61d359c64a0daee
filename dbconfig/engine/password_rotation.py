"""Password rotation: the first connection made with the new password retires those made with the old one."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, event

from dbconfig.engine import pool, secret_frames
from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.pool.facts import facts
from dbconfig.engine.pool.maintenance import caretaker
from dbconfig.settings import small_files
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.secret_sources import Secret

if TYPE_CHECKING:
    from dbconfig.settings.database import DatabaseSettings

_log = logging.getLogger("dbconfig.rotation")

ROUND: Final = 10.0  # seconds between two checks of a secret file
_MARK: Final = "dbconfig.password"  # in record.info: how many were read before, and the fingerprint
# Specific to this process: a fingerprint leaked by a core dump reveals nothing about the password.
_KEY: Final = os.urandom(32)


def attach(engine: Engine, settings: DatabaseSettings, name: str) -> None:
    """Watch the password of an engine, if its source can change in place.

    Not one from a provider: a token differs each time, and the connections that it opened stay valid.
    """
    password = settings.address.password
    if password is None or password.kind not in ("file", "env"):
        return
    numbers = itertools.count()
    watch = None
    if password.kind == "file" and not engine.dialect.is_async:
        watch = _Watch(engine, Path(settings.folder or "") / password.argument)

    # Inserted first; the listener that supplies the password is inserted before it.
    @event.listens_for(engine, "do_connect", insert=True)
    def mark(dialect: Any, record: Any, arguments: Any, parameters: dict[str, Any]) -> None:
        if record is not None:
            record.info[_MARK] = next(numbers), _fingerprint(parameters.get("password"))

    @event.listens_for(engine, "connect")
    def retire_older(connection: Any, record: Any) -> None:
        number, fingerprint = record.info[_MARK]
        older = [
            each
            for each in pool.ledger(engine).live()
            if each is not record and _MARK in each.info and _differs(each.info[_MARK], number, fingerprint)
        ]
        if older:
            _log.info(
                "%s: the password has changed; replacing %d older connections",
                name,
                len(older),
                extra=facts(name, replaced=len(older)),
            )
            pool.retire(engine, older)
        if watch is not None:
            watch.begin()


def _differs(mark: tuple[int, bytes], number: int, fingerprint: bytes) -> bool:
    # Two connects may overlap: the one that read the file earlier must not retire the other.
    return mark[0] < number and mark[1] != fingerprint


def _fingerprint(password: object) -> bytes:
    data = password if isinstance(password, bytes) else str(password).encode()
    return hashlib.blake2b(data, key=_KEY).digest()


class _Watch:
    """Checks whether the file was written, and then connects once: the old connections are replaced only on success."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = weakref.ref(engine)
        self._path = path
        self._seen = self._state()
        self._process = 0  # in which it runs; a forked child has no such thread

    def begin(self) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            caretaker.add(id(self), self, ROUND)

    def _state(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()  # being replaced at this moment
        return found.st_mtime_ns, found.st_ino, found.st_size

    def __call__(self) -> float | None:
        engine = self._engine()
        if engine is None or not pool.ledger(engine).live():
            self._process = 0
            return None  # until the next connection
        state = self._state()
        if state and state != self._seen:
            try:
                pool.connect_beside(engine)
            except Exception as error:
                # Usually the file was written before the password was changed on the server: retry in the next round.
                _log.info(
                    "cannot connect with the new content of %s yet: %s",
                    self._path,
                    type(error).__name__,
                    extra={"file": str(self._path), "error": type(error).__name__},
                )
                return ROUND
            self._seen = state
        return ROUND


def _prove_secrets(settings: DatabaseSettings) -> None:
    """Read the secrets once, so that a missing one is reported when the engine is created, not during a request."""
    settings.prove_password()
    password = settings.address.password
    file = password.file() if password is not None and settings.folder is None else None
    if file is None:
        return  # values loaded from a profile were checked at load
    if small_files.readable_by_others(file):
        _log.warning(
            "secret file %s is readable by other users: set its permissions to 600", file, extra={"file": str(file)}
        )
    if small_files.writable_by_others(file):
        _log.warning("secret file %s can be written or replaced by other users", file, extra={"file": str(file)})


def _supply_secrets(engine: Engine, settings: DatabaseSettings) -> None:
    """Pass secrets to the driver at each new connection, so that they can rotate and appear in no logged URL."""
    password = settings.address.password
    arguments = {name: value for name, value in settings.connect_args.items() if isinstance(value, Secret)}
    arguments |= {
        name: one for name, found in settings.address.query.items() for one in found if isinstance(one, Secret)
    }
    if password is None and not arguments:
        return
    driver = driver_protocol.of(engine.dialect)
    read = settings.read_password
    if engine.dialect.is_async and password is not None and password.kind == "provider":
        read = _without_blocking(read)

    @event.listens_for(engine, "do_connect")
    def supply(dialect: Any, record: Any, cargs: list[Any], cparams: dict[str, Any]) -> None:
        for name, value in arguments.items():
            cparams[name] = secret_frames.Masked(value.read())
        if password is not None:
            cparams["password"] = secret_frames.Masked(driver.password(read() or ""))

    secret_frames.keep_out(engine)


def _without_blocking(read: Callable[[], str | None]) -> Callable[[], str | None]:
    """Return a function that awaits a password provider without blocking the event loop."""
    import asyncio

    from sqlalchemy.util import await_only

    return lambda: await_only(asyncio.to_thread(read))
