"""The role of a MySQL or MariaDB server: writable or read-only, and whether a Galera node is ready."""

from __future__ import annotations

from typing import Any, Final

from dbconfig.engine.dialects.server_role import Answer, Role

# SHOW works on a Galera node that is not ready, and raises no error for variables that a system lacks.
_VARIABLES: Final = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN "
    "('read_only', 'super_read_only', 'innodb_read_only', 'offline_mode', 'wsrep_on')"
)
_STATUS: Final = (
    "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state', "
    "'wsrep_local_state_comment')"
)
_SYNCED: Final = "4"  # https://galeracluster.com/library/documentation/node-states.html


def ask(connection: Any, *, strictly: bool) -> Answer:
    """Ask a server whether it accepts writes."""
    variables = _shown(connection, _VARIABLES)
    for name in ("offline_mode", "super_read_only", "read_only", "innodb_read_only"):
        if not _is_off(variables.get(name)):
            return Answer(Role.OTHER, f"{name} is on")
    if _is_off(variables.get("wsrep_on")):
        return Answer(Role.PRIMARY, "it accepts writes")
    return node(_shown(connection, _STATUS))


def unfit(connection: Any) -> str:
    """Return why a Galera node must not be read from; "" if it may, and for any other server."""
    if _is_off(_shown(connection, _VARIABLES).get("wsrep_on")):
        return ""
    found = node(_shown(connection, _STATUS))
    return "" if found.role is Role.ONE_OF_SEVERAL else found.words


def _is_off(value: str | None) -> bool:
    return (value or "OFF").upper() in ("OFF", "0")


def node(status: dict[str, str]) -> Answer:
    """Return what the status of a Galera node means.

    A donor, and a node that is desynchronized for a backup, would accept writes with a delay; other nodes accept them
    now.
    """
    if status.get("wsrep_cluster_status") != "Primary":
        return Answer(Role.OTHER, "it has lost contact with the majority of its cluster")
    if _is_off(status.get("wsrep_ready")):
        return Answer(Role.OTHER, "the node is not ready")
    if status.get("wsrep_local_state") != _SYNCED:
        return Answer(Role.OTHER, f"the node is {status.get('wsrep_local_state_comment', 'not synced')}")
    return Answer(Role.ONE_OF_SEVERAL, "the node is synced")


def _shown(connection: Any, question: str) -> dict[str, str]:
    cursor = connection.cursor()
    try:
        cursor.execute(question)
        return {str(name).lower(): str(value) for name, value in cursor.fetchall()}
    finally:
        cursor.close()
