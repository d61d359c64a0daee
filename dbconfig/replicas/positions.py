"""Positions in the log, LSN and GTID: asked, parsed, compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InvalidRequestError

from dbconfig.engine.dialects import driver_protocol
from dbconfig.engine.dialects.mysql import server_role as mysql_role
from dbconfig.engine.pool import descriptor, driver, watch
from dbconfig.errors.light_dataclass import dataclass

_SERVER: Final = "dbconfig.server"  # in the info of a connection: which server it leads to
NODE: Final = "dbconfig.node"  # and whether that is a node of Galera, once it was asked
_SINGLE: Final = "dbconfig.single"  # and that all of its statements go to one server, though a pooler stands between
_PGPOOL: Final = "SHOW pool_version"  # only Pgpool-II understands it, and no prepared statement may ask it
_log = logging.getLogger("dbconfig.fleet")

# Seconds that a server has for telling its position. One that needs longer is in no state to be read from.
ANSWER_LIMIT: Final = 2.0


# Of PostgreSQL: which system, whose identifier a primary and its standbys share, which timeline, and where in its log.
_Position = tuple[str, str, int] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Positions:
    """How one database system tells how far a server is.

    `on_disk` is for a caller that has written nothing: beyond that position only records of no commit follow. They may
    reach no replica for seconds, because PostgreSQL's WAL writer sleeps on an idle server.

    `settled` is `primary` for a node of Galera, which first applies what its cluster has committed. Another node may
    have taken a commit that this one has received, and not applied.
    """

    primary: str
    replica: str
    parse: Callable[[str], _Position]
    covers: Callable[[Any, Any], bool]
    # Why two positions say nothing of each other, or "".
    parted: Callable[[Any, Any], str] = lambda seen, needed: ""
    on_disk: str = ""  # the same as `primary`
    settled: str = ""


def _lsn(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


GALERA: Final = "wsrep:"  # begins the position of a node of Galera


def _mariadb_gtids(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    if text.startswith(GALERA):
        cluster, _, number = text.rpartition(":")
        return {cluster: int(number)}
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
        of = source
        for interval in intervals:
            if not interval[:1].isdigit():  # MySQL 8.3 and later: a tag, of which the intervals after it are
                of = f"{source}:{interval.strip()}"
                continue
            first, _, last = interval.partition("-")
            found.setdefault(of, []).append((int(first), int(last or first)))
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


def _history_and_lsn(text: str) -> tuple[str, str, int]:
    history, _, position = text.rpartition(":")
    system, _, timeline = history.rpartition("/")
    return system, timeline, _lsn(position)


def _reaches(seen: tuple[str, str, int], needed: tuple[str, str, int]) -> bool:
    return seen[2] >= needed[2] and not _parted(seen, needed)


def _parted(seen: tuple[str, str, int], needed: tuple[str, str, int]) -> str:
    """Return why the positions are of two histories, whose numbers say nothing of each other, or ""."""
    if seen[0] and needed[0] and seen[0] != needed[0]:
        return OTHER_SYSTEM
    if seen[1] and needed[1] and seen[1] != needed[1]:
        return "it was promoted, and no longer follows this primary"
    return ""


OTHER_SYSTEM: Final = (
    "it is a different system from its primary, as with logical replication, so its position says nothing "
    "about the primary's writes: write `read_your_writes: false` to read from it"
)
_SYSTEM: Final = "(SELECT system_identifier FROM pg_control_system())"
_TIMELINE: Final = "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"


_POSTGRESQL: Final = Positions(
    # Of the insert, not of the flush: with `synchronous_commit = off` a commit returns before it is flushed.
    "SELECT pg_current_wal_insert_lsn()::text, current_setting('wal_block_size')::int, "
    f"pg_size_bytes(current_setting('wal_segment_size')), {_SYSTEM} || '/' || {_TIMELINE}, pg_backend_pid()",
    # A server out of recovery is the primary itself, or one that was promoted and goes its own way: its timeline tells.
    f"SELECT {_SYSTEM} || '/' || CASE WHEN pg_is_in_recovery() THEN ':' || pg_last_wal_replay_lsn() "
    f"ELSE {_TIMELINE} || ':' || pg_current_wal_insert_lsn() END, "
    # With the time of its start: one that was restored from an older copy is another server.
    f"concat_ws(' ', {_SYSTEM}, inet_server_addr(), inet_server_port(), "
    "date_part('epoch', pg_postmaster_start_time())), "
    "pg_backend_pid()",
    _history_and_lsn,
    _reaches,
    _parted,
    f"SELECT {_SYSTEM} || '/' || {_TIMELINE} || ':' || pg_current_wal_flush_lsn(), pg_backend_pid()",
)


# A node of Galera has a position of the whole cluster. Its GTIDs may be those of the node alone (wsrep_gtid_mode=OFF).
_GALERA: Final = (
    "(SELECT concat('wsrep:', min(if(variable_name LIKE '%uuid', variable_value, NULL)), ':', "
    "min(if(variable_name LIKE '%committed', variable_value, NULL))) FROM information_schema.global_status "
    "WHERE variable_name IN ('wsrep_cluster_state_uuid', 'wsrep_last_committed') AND variable_value NOT IN ('', '-1'))"
)
_MARIADB_POSITION: Final = f"coalesce({_GALERA}, @@global.gtid_current_pos)"
_MARIADB: Final = Positions(
    f"SELECT {_MARIADB_POSITION}",
    f"SELECT {_MARIADB_POSITION}, concat_ws(' ', @@hostname, @@port, @@global.server_id)",
    _mariadb_gtids,
    _has_domains,
    settled=f"SET STATEMENT wsrep_sync_wait = 1 FOR SELECT {_MARIADB_POSITION}",
)


_MYSQL: Final = Positions(
    "SELECT @@global.gtid_executed",
    "SELECT @@global.gtid_executed, concat_ws(' ', @@global.server_uuid, @@hostname, @@port)",
    _mysql_gtids,
    _has_intervals,
)


def positions_of(engine: Engine) -> Positions:
    """Return how to ask a server; for MySQL's dialect it must have connected once, to know what it talks to."""
    if engine.dialect.name == "postgresql":
        return _POSTGRESQL
    return _MARIADB if getattr(engine.dialect, "is_mariadb", False) else _MYSQL


def server_of(connection: Connection) -> str | None:
    """Return which server a connection leads to; None before it was asked for its position.

    An address does not say that: a balancer, or a group of hosts, leads to one server here and to another there.
    """
    found: str | None = connection.connection.info.get(_SERVER)
    return found


def _answer(proxied: Any, question: str) -> Any:
    cursor = proxied.cursor()
    try:
        cursor.execute(question)
        return cursor.fetchone()
    finally:
        cursor.close()


def unfit(connection: Connection) -> str:
    """Return why a server is not to be read from though it answers: a node of Galera that is not ready, or a donor."""
    return _bounded(connection, mysql_role.unfit) if connection.dialect.name in ("mysql", "mariadb") else ""


class CannotKnow(InvalidRequestError):
    """Nobody can say which server a statement reads from."""


def _refuse_pgpool(connection: Connection, number: int) -> None:
    """Refuse a connection on which each statement may go to another server.

    Raises:
        CannotKnow: Pgpool-II stands between.
    """
    proxied = connection.connection
    # A pooler tells the driver a number of its own, and the server tells its own one.
    if number == driver.of(connection.dialect).number(proxied.driver_connection) or _SINGLE in proxied.info:
        return
    fd = descriptor(connection.dialect, proxied.driver_connection)
    try:
        watch.call(fd, ANSWER_LIMIT, driver_protocol.of(connection.dialect).ask_unprepared, proxied, _PGPOOL)
    except Exception as error:  # the answer of a server; a connection that was lost is found by the next statement
        _log.debug("a pooler that is not Pgpool-II: %s", error)
        proxied.info[_SINGLE] = True
        return
    except BaseException:
        connection.invalidate()
        raise
    message = (
        "Pgpool-II chooses a server for each session or statement, so a read may miss what was just written: "
        "list the servers themselves as `url` and `replicas`, or write `read_your_writes: false`"
    )
    raise CannotKnow(message)


def _bounded(connection: Connection, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function with a connection, and end that if the server does not answer in time."""
    proxied = connection.connection
    try:
        found, in_time = watch.call(
            descriptor(connection.dialect, proxied.driver_connection), ANSWER_LIMIT, function, proxied, *arguments
        )
    except BaseException:  # of a cancelled task too: the answer would come to whoever asks next
        connection.invalidate()
        raise
    if not in_time:
        connection.invalidate()
        raise TimeoutError(f"no answer within {ANSWER_LIMIT:g} s")
    return found


def ask(connection: Connection, question: str) -> str:
    """Ask a server for its position; "" if it has none. One round trip, and bounded, whatever the server does.

    A replica tells with it which server it is; that is kept as long as the connection.
    """
    row = _bounded(connection, _answer, question)
    if row and connection.dialect.name == "postgresql":
        *row, number = row
        _refuse_pgpool(connection, number)
    if row and len(row) == 2:
        connection.connection.info[_SERVER] = str(row[1])
    if not row or not row[0]:
        return ""
    if len(row) <= 2:
        return str(row[0])
    text, block, segment, timeline = row
    return f"{timeline}:{_without_header(text, block, segment)}"
