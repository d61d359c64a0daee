"""The server's view of its clients: applications and their states, open transactions, blockers, and free slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from dbconfig.settings.known_drivers import family

_POSTGRESQL: Final = {
    "applications": """
        SELECT coalesce(nullif(application_name, ''), '?'), coalesce(state, '?'), count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 40""",
    "transactions": """
        SELECT coalesce(nullif(application_name, ''), '?'), coalesce(state, '?'),
            extract(epoch FROM clock_timestamp() - xact_start)::float8, pid
        FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()
            AND backend_type = 'client backend' ORDER BY xact_start LIMIT 10""",
    "blockers": """
        SELECT w.pid, coalesce(nullif(w.application_name, ''), '?'),
            b.pid, coalesce(nullif(b.application_name, ''), '?'),
            extract(epoch FROM clock_timestamp() - w.query_start)::float8
        FROM pg_stat_activity w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS by(pid)
        JOIN pg_stat_activity b ON b.pid = by.pid ORDER BY 5 DESC LIMIT 10""",
    "slots": """
        SELECT count(*) FILTER (WHERE backend_type = 'client backend'), current_setting('max_connections')::int
        FROM pg_stat_activity""",
}
_MYSQL: Final = {
    "applications": """
        SELECT coalesce(nullif(a.attr_value, ''), '?'), lower(p.command), count(*) FROM information_schema.processlist p
        LEFT JOIN performance_schema.session_connect_attrs a
            ON a.processlist_id = p.id AND a.attr_name = 'program_name'
        WHERE p.command NOT IN ('Daemon', 'Binlog Dump') GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 40""",
    "transactions": """
        SELECT coalesce(nullif(a.attr_value, ''), '?'), lower(t.trx_state),
            timestampdiff(SECOND, t.trx_started, now()), t.trx_mysql_thread_id
        FROM information_schema.innodb_trx t LEFT JOIN performance_schema.session_connect_attrs a
            ON a.processlist_id = t.trx_mysql_thread_id AND a.attr_name = 'program_name'
        WHERE t.trx_mysql_thread_id <> connection_id() ORDER BY t.trx_started LIMIT 10""",
    "slots": "SELECT (SELECT count(*) FROM information_schema.processlist), @@max_connections",
}
_OWN_ACCOUNT: Final = ("session_connect_attrs", "session_account_connect_attrs")


@dataclass(frozen=True)
class Seen:
    """A server's view of its clients at one moment, without statements."""

    applications: list[tuple[str, str, int]]  # name, state, connections
    transactions: list[tuple[str, str, float, int]]  # name, state, seconds, the server's session ID
    blockers: list[tuple[int, str, int, str, float]]  # waiter, blocker, seconds
    used: int
    slots: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def look(engine: Engine) -> Seen | None:
    """Query a server; None for SQLite, which has no server."""
    questions = {"postgresql": _POSTGRESQL, "mysql": _MYSQL}.get(family(engine.dialect.name))
    if questions is None:
        return None
    with engine.connect() as connection:

        def rows(name: str) -> Sequence[Any]:
            statement = questions.get(name)
            if statement is None:
                return []
            try:
                return connection.execute(text(statement)).all()
            except DBAPIError:
                if questions is not _MYSQL:
                    raise
            # A user without privileges sees the names of its own account's connections, and no transactions.
            if name == "transactions":
                return []
            return connection.execute(text(statement.replace(*_OWN_ACCOUNT))).all()

        (slots,) = rows("slots")
        return Seen(
            [(str(name), str(state), int(count)) for name, state, count in rows("applications")],
            [(str(name), str(state), float(age), int(pid)) for name, state, age, pid in rows("transactions")],
            [(int(w), str(who), int(b), str(by), float(age)) for w, who, b, by, age in rows("blockers")],
            int(slots[0]),
            int(slots[1]),
        )
