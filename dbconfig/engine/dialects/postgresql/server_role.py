"""The role of a PostgreSQL server: primary or standby, and its timeline."""

from __future__ import annotations

from typing import Any, Final

from dbconfig.engine.dialects.server_role import Answer, Role

# The timeline of its write-ahead log grows with each promotion.
_QUESTION: Final = (
    "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', "
    "CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END"
)


def ask(connection: Any, *, strictly: bool) -> Answer:
    """Ask a server whether it is the primary; nothing is left open on the connection."""
    before = connection.autocommit
    connection.autocommit = True  # otherwise a transaction would stay open, or cost a round trip to end
    cursor = connection.cursor()
    try:
        cursor.execute(_QUESTION)
        standby, read_only, timeline = cursor.fetchone()
    finally:
        cursor.close()
    connection.autocommit = before
    if standby:
        return Answer(Role.OTHER, "it is a standby")
    if read_only and strictly:
        return Answer(Role.READ_ONLY, "its transactions are read-only by default")
    return Answer(Role.PRIMARY, "it is the primary", int(timeline, 16))
