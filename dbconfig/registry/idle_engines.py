"""Closes the engines of databases that have been unused for `engine_idle_timeout`; the next use reopens them."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import Engine

from dbconfig.engine import pool
from dbconfig.engine.pool.clock import monotonic
from dbconfig.engine.pool.facts import facts
from dbconfig.registry.profiles import Resolved
from dbconfig.registry.styles import Key

_log = logging.getLogger("dbconfig.registry.idle")

LOOKS: Final = 4  # checks per timeout: an engine lives at most a quarter longer than that


class Owner(Protocol):
    """The owner of the engines: the process, or an event loop."""

    def of_database(self, key: Key) -> list[Engine]: ...

    def close_database(self, key: Key, unused: Callable[[Sequence[Engine]], bool]) -> bool: ...

    def looks_after(self, watch: Any) -> bool: ...

    def remind(self, engine: Any) -> None: ...


Later = Callable[[object, Callable[[], float | None], float], None]


class IdleDatabase:
    """Checks periodically whether a database was used, by its pools' counters, at no cost for sessions."""

    def __init__(self, engines: Owner, found: Resolved, later: Later) -> None:
        """Configure what to watch; `begin` starts.

        Args:
            engines: of the owner, the process or an event loop.
            found: the database.
            later: the owner's way to call a function after some seconds, and again after the seconds that it returns.
        """
        self.key: Key = found.key
        self._label = found.label
        self._timeout: float = found.settings.engine_idle_timeout or 0.0
        self._engines = weakref.ref(engines)
        self._later = later
        self._process = 0  # the watching process; a forked child has neither the thread nor the timer
        self._used = -1
        self._since = 0.0

    def begin(self) -> None:
        """Watch from now on, until it is closed."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._used, self._since = -1, monotonic()
            self._later(self, self._look, self._timeout / LOOKS)

    def _look(self) -> float | None:
        """Close what is unused; return the seconds until the next check, or None if nothing is left to close."""
        engines = self._engines()
        known = engines.of_database(self.key) if engines is not None and engines.looks_after(self) else []
        if engines is None or not known:
            self._process = 0
            return None
        now = monotonic()
        used, unused = sum(map(_uses, known)), _at_rest(known)
        if used != self._used or not unused:
            self._used, self._since = used, now
        elif now - self._since >= self._timeout:
            return self._close(engines, now - self._since)
        return self._timeout / LOOKS

    def _close(self, engines: Owner, rested: float) -> float | None:
        def unused(known: Sequence[Engine]) -> bool:
            return _at_rest(known) and sum(map(_uses, known)) == self._used

        if not engines.close_database(self.key, unused):
            return self._timeout / LOOKS
        self._process = 0
        _log.info(
            "%s: closed after %.3g s without use; the next use opens it again",
            self._label,
            rested,
            extra=facts(self._label, seconds=rested),
        )
        return None


def _uses(engine: Engine) -> int:
    """Return how often an engine was used; checks of a replica's lag do not count."""
    reader = pool.ledger(engine).reader()
    return pool.stats(engine).use.count if reader is None else reader.reads


def _at_rest(engines: Sequence[Engine]) -> bool:
    return not any(map(_busy, engines))


def _busy(engine: Engine) -> bool:
    reader, stats = pool.ledger(engine).reader(), pool.stats(engine)
    # A check in progress when its database closes returns and closes its connection.
    own = 1 if reader is not None and reader.asked else 0
    return stats.used + stats.connecting + stats.waiting > own


class Reminder:
    """Starts watching a database at its next connect; keeps neither the engines nor itself alive."""

    def __init__(self, engines: Owner, engine: Any) -> None:
        self._engines, self._engine = weakref.ref(engines), weakref.ref(engine)

    def __call__(self, connection: Any, record: Any) -> None:
        engines, engine = self._engines(), self._engine()
        if engines is not None and engine is not None:
            engines.remind(engine)
