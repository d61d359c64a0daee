"""Lag of a replica: whether it has what the primary had written a moment ago, or else how old its data is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from dbconfig.replicas import positions

PATIENCE: Final = 1.0  # seconds in which a replica may catch up
_PAUSE: Final = 0.05  # seconds between two checks

_AGE: Final = "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8"
_COLUMNS: Final = "Seconds_Behind_Master", "Seconds_Behind_Source"  # MariaDB's and MySQL's


@dataclass(frozen=True, slots=True)
class Lag:
    """The lag of a replica.

    Attributes:
        current: whether it has what the primary had written; None if unknown.
        seconds: how far behind it is, an upper bound if it is current; None if unknown.
        words: the same as text.
    """

    current: bool | None
    seconds: float | None
    words: str

    def __str__(self) -> str:
        return self.words


def written_so_far(connection: Connection) -> tuple[str, float] | None:
    """Return the primary's position in its log, and the time of the query; None if it has no comparable position."""
    how = positions.positions_of(connection.engine)
    try:
        found = positions.ask(connection, how.on_disk or how.primary)
    except (SQLAlchemyError, TimeoutError):  # not the primary, but a standby, which the examination reports
        return None
    return (found, time.monotonic()) if found else None


def lag_of(connection: Connection, written: tuple[str, float] | None) -> Lag:
    """Return the lag of a replica behind a position of its primary."""
    if written is None:
        return Lag(None, None, "lag unknown: the primary does not report a position in its log")
    needed, asked = written
    how = positions.positions_of(connection.engine)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            seen = positions.ask(connection, how.replica)
        except (positions.CannotKnow, TimeoutError) as error:
            return Lag(None, None, f"lag unknown: {error}")
        if seen and how.covers(how.parse(seen), how.parse(needed)):
            spent = time.monotonic() - asked
            return Lag(True, spent, "up to date")
        if seen and how.parted(how.parse(seen), how.parse(needed)):
            return Lag(False, None, "it has diverged from the primary: it was promoted, or follows another primary")
        if time.monotonic() >= end:
            break
        time.sleep(_PAUSE)
    age = _age(connection)
    if age is None:
        return Lag(False, None, f"more than {PATIENCE:g} s behind")
    return Lag(False, age, f"behind by {age:.1f} s")


def _age(connection: Connection) -> float | None:
    """Return the age of a replica's data; None if it does not report it, or if that requires a privilege."""
    if connection.dialect.name == "postgresql":
        found = connection.execute(text(_AGE)).scalar()
        return None if found is None else float(found)
    try:
        row: Any = connection.execute(text("SHOW REPLICA STATUS")).mappings().first()
    except SQLAlchemyError:  # without the privilege REPLICATION CLIENT or SLAVE MONITOR
        return None
    found = next((row[name] for name in _COLUMNS if row is not None and row.get(name) is not None), None)
    return None if found is None else float(found)
