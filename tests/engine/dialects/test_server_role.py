"""What a node of Galera says of itself, and what that means."""

from typing import Any

import pytest

from dbconfig.engine.dialects.mysql import server_role
from dbconfig.engine.dialects.server_role import Role

SYNCED = {
    "wsrep_cluster_status": "Primary",
    "wsrep_ready": "ON",
    "wsrep_local_state": "4",
    "wsrep_local_state_comment": "Synced",
}


class Node:
    """A connection to a server that shows these variables and this status."""

    def __init__(self, variables: dict[str, str], status: dict[str, str]) -> None:
        self._answers = {"VARIABLES": variables, "STATUS": status}
        self._shown: list[tuple[str, str]] = []

    def cursor(self) -> Any:
        return self

    def execute(self, question: str) -> None:
        self._shown = list(self._answers[question.split()[2]].items())

    def fetchall(self) -> list[tuple[str, str]]:
        return self._shown

    def close(self) -> None:
        """It is its own cursor."""


@pytest.mark.parametrize(
    ("variables", "change", "role", "words"),
    [
        ({"wsrep_on": "ON", "read_only": "OFF"}, {}, Role.ONE_OF_SEVERAL, "synced"),
        ({"wsrep_on": "ON"}, {"wsrep_ready": "OFF"}, Role.OTHER, "not ready"),
        ({"wsrep_on": "ON"}, {"wsrep_cluster_status": "non-Primary"}, Role.OTHER, "majority"),
        (
            {"wsrep_on": "ON"},
            {"wsrep_local_state": "2", "wsrep_local_state_comment": "Donor/Desynced"},
            Role.OTHER,
            "Donor/Desynced",
        ),
        ({"wsrep_on": "ON", "read_only": "ON"}, {}, Role.OTHER, "read_only is on"),
        ({"read_only": "OFF", "super_read_only": "ON"}, {}, Role.OTHER, "super_read_only is on"),
        ({"read_only": "OFF", "offline_mode": "ON"}, {}, Role.OTHER, "offline_mode is on"),
        ({"read_only": "OFF", "wsrep_on": "OFF"}, {"wsrep_ready": "OFF"}, Role.PRIMARY, "accepts writes"),
    ],
)
def test_a_server_says_whether_it_takes_writes(
    variables: dict[str, str], change: dict[str, str], role: Role, words: str
) -> None:
    answer = server_role.ask(Node(variables, SYNCED | change), strictly=False)
    assert answer.role is role
    assert words in answer.words


@pytest.mark.parametrize(
    ("variables", "change", "words"),
    [
        ({"wsrep_on": "ON", "read_only": "ON"}, {}, ""),  # a replica may be read-only
        ({"wsrep_on": "ON"}, {"wsrep_local_state": "2", "wsrep_local_state_comment": "Donor/Desynced"}, "Donor"),
        ({"wsrep_on": "ON"}, {"wsrep_ready": "OFF"}, "not ready"),
        ({}, {"wsrep_ready": "OFF"}, ""),  # no Galera
    ],
)
def test_a_node_that_lags_or_is_not_ready_is_not_read_from(
    variables: dict[str, str], change: dict[str, str], words: str
) -> None:
    found = server_role.unfit(Node(variables, SYNCED | change))
    assert bool(found) is bool(words)
    assert words in found
