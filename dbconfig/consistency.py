"""Read your writes: what a task or thread has committed, and whether another server has it already."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from sqlalchemy import Connection, Engine

from dbconfig.pool import descriptor, watch

if TYPE_CHECKING:
    from dbconfig.settings import DatabaseSettings

# Seconds that a server has for telling its position. One that needs longer is in no state to be read from.
ANSWER_LIMIT: Final = 2.0
# Seconds for which a commit is read from the primary alone where no position can be compared.
BY_TIME: Final = 10.0
# Seconds by which the clocks of two processes may differ.
CLOCKS: Final = 10.0

_Position = tuple[str, int] | Mapping[str, Any]


@dataclass(slots=True)
class Mark:
    """The last commit of a context: when it was, and, once somebody has asked the primary, up to which position.

    Not frozen: contexts are copied, and what one of the copies has asked is not to be asked by each of them. What a
    process commits at its start would else cost each of its requests a question.
    """

    at: float  # time.time(): it is handed on to other processes
    position: str = ""
    asked: bool = False


class Scope:
    """What a request has committed, shared by all tasks and threads that work for it."""

    def __init__(self, marks: Mapping[str, Mark]) -> None:
        self.marks = dict(marks)


_scope: ContextVar[Scope | None] = ContextVar("dbconfig.scope", default=None)
_marks: ContextVar[Mapping[str, Mark]] = ContextVar("dbconfig.marks", default={})  # noqa: B039  # never written into


def marks() -> Mapping[str, Mark]:
    scope = _scope.get()
    return _marks.get() if scope is None else scope.marks


def note(key: str, mark: Mark) -> None:
    scope = _scope.get()
    if scope is None:
        _marks.set({**_marks.get(), key: mark})
    else:
        scope.marks[key] = mark


@contextmanager
def scope(found: Mapping[str, Mark]) -> Iterator[Scope]:
    own = marks()
    both = {key: _later(own[key], mark) if key in own else mark for key, mark in found.items()}
    opened = Scope({**own, **both})
    before = _scope.set(opened)
    try:
        yield opened
    finally:
        _scope.reset(before)


def _later(own: Mark, given: Mark) -> Mark:
    """Return a mark that includes two of them; the time of a given one is of another process's clock."""
    if own.at < given.at - CLOCKS:
        return given
    return Mark(max(own.at, given.at))  # the primary, asked again, is further than either


def key_of(label: str, settings: DatabaseSettings) -> str:
    """Return the name of a database in marks and tokens: the same in each process that has the same profile."""
    address = settings.address
    where = (address.host, address.port, address.database, sorted(map(str, address.query.get("host", ()))))
    return f"{label}#{crc32(repr(where).encode()):08x}"


def watch_commits(engine: Engine, key: str) -> None:
    """Note each commit on an engine; by the dialect, because a listener would cost every statement of the engine."""
    dialect: Any = engine.dialect
    commit: Callable[[Any], None] = dialect.do_commit
    commit_prepared: Callable[..., None] = dialect.do_commit_twophase

    def do_commit(connection: Any) -> None:
        commit(connection)
        note(key, Mark(time.time()))

    def do_commit_twophase(*arguments: Any, **keywords: Any) -> None:
        commit_prepared(*arguments, **keywords)
        note(key, Mark(time.time()))

    dialect.do_commit = do_commit
    dialect.do_commit_twophase = do_commit_twophase


# Tokens


def to_token(found: Mapping[str, Mark]) -> str:
    """Return marks as text for a cookie, a header or a message; "" for none."""
    if not found:
        return ""
    plain = {key: [round(mark.at, 3), mark.position] for key, mark in found.items()}
    return base64.urlsafe_b64encode(json.dumps(plain, separators=(",", ":")).encode()).decode().rstrip("=")


def from_token(token: str) -> dict[str, Mark]:
    """Return the marks of a token.

    Raises:
        ValueError: it is none.
    """
    if not token:
        return {}
    try:
        plain = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        found = {key: Mark(float(at), str(position), True) for key, (at, position) in plain.items()}
        if not all(isfinite(mark.at) for mark in found.values()):
            raise ValueError("a time that never passes")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error):
        raise ValueError("this is no token of write_token()") from None
    # A clock that runs ahead, or somebody who plays with the token, must not keep reads on the primary for ever.
    return {key: Mark(min(mark.at, time.time()), mark.position, True) for key, mark in found.items()}


# Positions


@dataclass(frozen=True, slots=True)
class Positions:
    """How one database system tells how far a server is."""

    primary: str
    replica: str
    parse: Callable[[str], _Position]
    covers: Callable[[Any, Any], bool]
    parted: Callable[[Any, Any], bool] = lambda seen, needed: False


def _lsn(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _mariadb_gtids(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for gtid in text.split(","):
        domain, _, number = gtid.strip().split("-")
        found[domain] = max(int(number), found.get(domain, 0))
    return found


def _has_domains(seen: Mapping[str, int], needed: Mapping[str, int]) -> bool:
    return all(seen.get(domain, -1) >= number for domain, number in needed.items())


def _mysql_gtids(text: str) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for part in text.replace("\n", "").split(","):
        source, *intervals = part.strip().split(":")
        pairs = (interval.partition("-") for interval in intervals)
        found[source] = [(int(first), int(last or first)) for first, _, last in pairs]
    return found


def _has_intervals(seen: Mapping[str, list[tuple[int, int]]], needed: Mapping[str, list[tuple[int, int]]]) -> bool:
    return all(
        any(first <= begin and end <= last for first, last in seen.get(source, ()))
        for source, intervals in needed.items()
        for begin, end in intervals
    )


def _without_header(text: str, block: int, segment: int) -> str:
    """Return an insert position as the end of the last record, which is what a replica tells.

    Where the next record will be the first of its page, the primary points behind the header of that page: 24 bytes, or
    40 in the first page of a segment. No replica gets there before that record. On a primary that rests, all of them
    would lag for ever: always after a switch to a new segment (`archive_timeout`, a backup), else once in 1,000 times.
    """
    position = _lsn(text)
    if position % block == (40 if position % segment < block else 24):
        position -= position % block
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _history_and_lsn(text: str) -> tuple[str, int]:
    history, _, position = text.rpartition(":")
    return history, _lsn(position)


def _reaches(seen: tuple[str, int], needed: tuple[str, int]) -> bool:
    return seen[1] >= needed[1] and not _parted(seen, needed)


def _parted(seen: tuple[str, int], needed: tuple[str, int]) -> bool:
    """Return whether the positions are of two histories, whose numbers say nothing of each other."""
    return bool(seen[0] and needed[0] and seen[0] != needed[0])


_TIMELINE: Final = "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
_POSTGRESQL: Final = Positions(
    # Of the insert, not of the flush: with `synchronous_commit = off` a commit returns before it is flushed.
    "SELECT pg_current_wal_insert_lsn()::text, current_setting('wal_block_size')::int, "
    f"pg_size_bytes(current_setting('wal_segment_size')), {_TIMELINE}",
    # A server out of recovery is the primary itself, or one that was promoted and goes its own way: its timeline tells.
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text "
    f"ELSE {_TIMELINE} || ':' || pg_current_wal_insert_lsn() END",
    _history_and_lsn,
    _reaches,
    _parted,
)
_MARIADB: Final = Positions(
    "SELECT @@global.gtid_current_pos", "SELECT @@global.gtid_current_pos", _mariadb_gtids, _has_domains
)
_MYSQL: Final = Positions(
    "SELECT @@global.gtid_executed", "SELECT @@global.gtid_executed", _mysql_gtids, _has_intervals
)


def positions_of(engine: Engine) -> Positions:
    """Return how to ask a server; for MySQL's dialect it must have connected once, to know what it talks to."""
    if engine.dialect.name == "postgresql":
        return _POSTGRESQL
    return _MARIADB if getattr(engine.dialect, "is_mariadb", False) else _MYSQL


def ask(connection: Connection, question: str) -> str:
    """Ask a server for its position; "" if it has none. One round trip, and bounded, whatever the server does."""
    proxied = connection.connection
    plug = descriptor(proxied.driver_connection)
    guard = None if plug is None else watch.enter(plug, ANSWER_LIMIT)
    try:
        cursor = proxied.cursor()
        try:
            cursor.execute(question)
            row = cursor.fetchone()
        finally:
            cursor.close()
    except BaseException:  # of a cancelled task too: the answer would come to whoever asks next
        connection.invalidate()
        raise
    finally:
        in_time = guard is None or watch.leave(guard)
    if not in_time:
        connection.invalidate()
        raise TimeoutError(f"no answer within {ANSWER_LIMIT:g} s")
    if not row or not row[0]:
        return ""
    if len(row) == 1:
        return str(row[0])
    text, block, segment, timeline = row
    return f"{timeline}:{_without_header(text, block, segment)}"
