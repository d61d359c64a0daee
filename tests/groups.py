"""Primaries with their replicas, and what the tests of reading from them share."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlmodel import Field, MetaData, SQLModel

from dbconfig import Profile, Registry
from dbconfig.replicas import read_your_writes
from tests.support import servers
from tests.support.postgresql import PostgreSQLStandby
from tests.support.servers import MariaDBServer, Server, ServerMissing


class Base(SQLModel):
    metadata = MetaData()


class Note(Base, table=True):
    __tablename__ = "replica_note"
    id: int | None = Field(default=None, primary_key=True)
    text: str = ""


@dataclass
class Group:
    """A primary with its replicas, and a registry that knows them."""

    primary: Server
    replicas: list[PostgreSQLStandby]

    def registry(self, *overrides: dict[str, object], **settings: object) -> Registry:
        replicas = [{"port": each.port} for each in self.replicas]
        for replica, override in zip(replicas, overrides, strict=False):
            replica |= override
        settings = {"replica_max_lag": False, "replicas": replicas, "url": self.primary.url(), **settings}
        return Registry.from_profile(Profile(name="group", **settings))

    def heal(self) -> None:
        read_your_writes._marks.set({})  # as in a request that has written nothing
        for replica in self.replicas:
            replica.heal()
            replica.sql("SELECT pg_wal_replay_resume()")
            replica.catch_up()


def name(server: Server) -> str:
    return f"{server.host}:{server.port}"


@pytest.fixture(scope="module")
def servers_of_group() -> Iterator[Group]:
    try:
        primary = servers.postgresql()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with primary, primary.standby() as one, primary.standby() as two:
        with Registry.from_profile(Profile(name="group", url=primary.url())) as db:
            db.create_tables(Note)
        yield Group(primary, [one, two])


@pytest.fixture
def group(servers_of_group: Group) -> Iterator[Group]:
    servers_of_group.heal()
    yield servers_of_group
    servers_of_group.heal()


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[MariaDBServer, MariaDBServer]]:
    try:
        primary = servers.mariadb()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with primary, primary.replica() as replica:
        yield primary, replica
