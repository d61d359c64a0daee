"""Positions in the log (LSN and GTID): queried, parsed, and compared."""

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

_SERVER: Final = "dbconfig.server"  # in the info of a connection: its server
NODE: Final = "dbconfig.node"  # and whether that is a Galera node, once known
_SINGLE: Final = "dbconfig.single"  # and that all of its statements go to one server, although a pooler is in between
_PGPOOL: Final = "SHOW pool_version"  # only Pgpool-II understands it, and no prepared statement may ask it
_log = logging.getLogger("dbconfig.fleet")

# Seconds that a server has to report its position. One that needs longer should not be read from.
ANSWER_LIMIT: Final = 2.0


# Of PostgreSQL: which system, whose identifier a primary and its standbys share, which timeline, and where in its log.
_Position = tuple[str, str, int] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Positions:
    """How a database system reports a server's position.

    `on_disk` is for a caller that has written nothing: beyond that position there are no commit records. What follows
    may take seconds to reach a replica, because PostgreSQL's WAL writer sleeps on an idle server.

    `settled` is `primary` for a Galera node, which first applies what its cluster has committed. Another node may have
    accepted a commit that this one has received but not applied.
    """

    primary: str
    replica: str
    parse: Callable[[str], _Position]
    covers: Callable[[Any, Any], bool]
    # Why two positions cannot be compared, or "".
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
            if not interval[:1].isdigit():  # MySQL 8.3 and later: a tag, to which the following intervals belong
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
    """Return an insert position as the end of the last record, which is what a replica reports.

    If the next record will be the first of its page, the primary's position is after the header of that page: 24 bytes,
    or 40 in the first page of a segment. A replica reaches it only with that record. On an idle primary, all replicas
    would appear to lag forever: always after a switch to a new segment (`archive_timeout`, a backup), otherwise once in
    1,000 times.
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
    """Return why the positions belong to two histories and cannot be compared, or ""."""
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
    # A server not in recovery is the primary itself, or one that was promoted and has diverged: its timeline shows it.
    f"SELECT {_SYSTEM} || '/' || CASE WHEN pg_is_in_recovery() THEN ':' || pg_last_wal_replay_lsn() "
    f"ELSE {_TIMELINE} || ':' || pg_current_wal_insert_lsn() END, "
    # With its start time: one that was restored from an older copy is a different server.
    f"concat_ws(' ', {_SYSTEM}, inet_server_addr(), inet_server_port(), "
    "date_part('epoch', pg_postmaster_start_time())), "
    "pg_backend_pid()",
    _history_and_lsn,
    _reaches,
    _parted,
    f"SELECT {_SYSTEM} || '/' || {_TIMELINE} || ':' || pg_current_wal_flush_lsn(), pg_backend_pid()",
)


# A Galera node has a position of the whole cluster. Its GTIDs may be local to the node (wsrep_gtid_mode=OFF).
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
    """Return how to query a server; MySQL's dialect must have connected once, to know the server's system."""
    if engine.dialect.name == "postgresql":
        return _POSTGRESQL
    return _MARIADB if getattr(engine.dialect, "is_mariadb", False) else _MYSQL


def server_of(connection: Connection) -> str | None:
    """Return the server of a connection; None before its position was queried.

    The address does not identify it: behind a load balancer, or a group of hosts, are several servers.
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
    """Return why a server must not be read from although it answers: a Galera node that is not ready, or a donor."""
    return _bounded(connection, mysql_role.unfit) if connection.dialect.name in ("mysql", "mariadb") else ""


class CannotKnow(InvalidRequestError):
    """It is unknown which server a statement reads from."""


def _refuse_pgpool(connection: Connection, number: int) -> None:
    """Reject a connection on which each statement may go to another server.

    Raises:
        CannotKnow: Pgpool-II is in between.
    """
    proxied = connection.connection
    # A pooler gives the driver its own process ID, which differs from the server's.
    if number == driver.of(connection.dialect).number(driver_protocol.own_of(connection)) or _SINGLE in proxied.info:
        return
    fd = descriptor(connection.dialect, driver_protocol.own_of(connection))
    try:
        watch.call(fd, ANSWER_LIMIT, driver_protocol.of(connection.dialect).ask_unprepared, proxied, _PGPOOL)
    except Exception as error:  # the answer of a server; the next statement detects a lost connection
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
    """Call a function with a connection, with a time limit for the server's answer."""
    proxied = connection.connection
    try:
        found, in_time = watch.call(
            descriptor(connection.dialect, driver_protocol.own_of(connection)),
            ANSWER_LIMIT,
            function,
            proxied,
            *arguments,
        )
    except BaseException:  # for a cancelled task too: the next query would read this answer
        connection.invalidate()
        raise
    if not in_time:
        connection.invalidate()
        raise TimeoutError(f"no answer within {ANSWER_LIMIT:g} s")
    return found


def ask(connection: Connection, question: str) -> str:
    """Ask a server for its position; "" if it has none. One round trip, with a time limit.

    A replica also reports its identity, which is kept for the life of the connection.
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
