"""`dbconfig check` says on a node of Galera what a read finds of what was committed on another node."""

from __future__ import annotations

from typing import Any

import pytest

from dbconfig import Profile
from dbconfig.cli.commands.check import server as looks
from dbconfig.cli.commands.check.server import Server
from dbconfig.cli.commands.check.verdicts import Deployment, judge
from tests.cli.conftest import Project
from tests.support.server import Server as TestServer


def step(server: Server, *, is_replica: bool = False, **given: Any) -> str | None:
    settings = Profile(name="cluster", url="mysql://app@node1/shop", **given).databases["default"]
    steps, problems = judge(server, settings, "default", Deployment(1, 1, None), is_replica=is_replica)
    assert problems == []
    return next((each.detail for each in steps if each.name == "galera"), None)


NODE = Server(node="n1, Synced", nodes=3, sync_wait=0)
REPLICAS = [{"host": "node2"}]


@pytest.mark.parametrize(
    ("server", "given", "words"),
    [
        (NODE, {}, "may miss the last commits"),
        (Server(node="n1, Synced", nodes=3, sync_wait=2), {}, "may miss the last commits"),  # it is for updates
        (Server(node="n1, Synced", nodes=3, sync_wait=7), {}, "wsrep_sync_wait=7"),
        (NODE, {"replicas": REPLICAS}, "wait for what their caller has committed"),
        (NODE, {"read_your_writes": False, "replicas": REPLICAS}, "read_your_writes is off"),
    ],
)
def test_a_node_says_what_its_reads_find(server: Server, given: dict[str, Any], words: str) -> None:
    told = step(server, **given)
    assert told is not None
    assert told.startswith("node n1, Synced; 3 nodes; ")
    assert words in told


def test_any_other_server_says_nothing_of_it() -> None:
    assert step(Server()) is None


class Shown:
    """Answers SHOW as a node of Galera does."""

    def __init__(self, **variables: str) -> None:
        self._variables = variables

    def execute(self, statement: Any) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self._variables.items() if f"'{name}'" in str(statement)]


def test_the_node_is_looked_at_where_there_is_one() -> None:
    found, alone = Server(), Server()
    node: Any = Shown(
        wsrep_on="ON",
        wsrep_node_name="n2",
        wsrep_sync_wait="1",
        wsrep_local_state_comment="Donor/Desynced",
        wsrep_cluster_size="3",
    )
    looks._galera(node, found)
    assert (found.node, found.nodes, found.sync_wait) == ("n2, Donor/Desynced", 3, 1)
    mariadb: Any = Shown(wsrep_on="OFF", wsrep_node_name="host", wsrep_sync_wait="0")
    looks._galera(mariadb, alone)
    mysql: Any = Shown()
    looks._galera(mysql, alone)
    assert alone == Server()


@pytest.mark.server
def test_a_server_without_a_cluster_has_no_such_line(project: Project, mariadb: TestServer) -> None:
    project.profile(f"url: {mariadb.url()}\n")
    result = project.run("check")
    assert result.code == 0
    assert "galera" not in result.out
