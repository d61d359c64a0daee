"""The recipes of docs/several-servers.md, taken from there and run."""

import contextvars
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.testclient import TestClient
from sqlmodel import Field, MetaData, SQLModel, select

from dbconfig import Profile, Registry
from dbconfig.replicas import read_your_writes
from tests.support import servers
from tests.support.postgresql import PostgreSQLServer, PostgreSQLStandby
from tests.support.servers import ServerMissing

PAGE = (Path(__file__).parents[2] / "docs/several-servers.md").read_text(encoding="utf-8")


class Base(SQLModel):
    metadata = MetaData()


class Purchase(Base, table=True):
    __tablename__ = "recipe_purchase"
    customer_id: int = Field(primary_key=True)
    number: int = Field(primary_key=True)


class Remark(Base, table=True):
    __tablename__ = "recipe_remark"
    id: int | None = Field(default=None, primary_key=True)


def block(language: str, containing: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return next(text for text in found if containing in text)


def test_its_settings_are_a_profile() -> None:
    text = (
        block("yaml", "replicas:").replace("${DB_PASSWORD}", "secret").replace("{file: /run/secrets/reader}", "other")
    )
    replicas = Profile(name="docs", **yaml.safe_load(text)).databases["default"].replicas
    assert [str(each.address) for each in replicas] == [
        "postgresql://app:***@db2.internal/shop",
        "postgresql://app:***@db3.internal/shop",
        "postgresql://reader:***@db4.internal/shop",
    ]
    assert [each.weight for each in replicas] == [1, 3, 0]


def test_the_sharding_recipe_spreads_and_finds(tmp_path: Path) -> None:
    databases = {name: {"url": f"sqlite:///{tmp_path}/{name}.db"} for name in ("shard0", "shard1")}
    with Registry.from_profile(Profile(name="docs", databases=databases)) as db:
        names: dict[str, object] = {"db": db, "Order": Purchase}
        exec(block("python", "ShardedSession"), names)
        session = names["session"]
        with session:  # type: ignore[attr-defined]
            session.add_all(Purchase(customer_id=number, number=1) for number in range(10))  # type: ignore[attr-defined]
            session.commit()  # type: ignore[attr-defined]
            assert len(session.execute(select(Purchase)).all()) == 10  # type: ignore[attr-defined]
            assert session.get(Purchase, (7, 1)).customer_id == 7  # type: ignore[attr-defined]
        for remainder, name in enumerate(("shard0", "shard1")):
            with db.session(name) as one:
                assert {each % 2 for each in one.exec(select(Purchase.customer_id))} == {remainder}


@pytest.fixture
def late() -> Iterator[tuple[PostgreSQLServer, PostgreSQLStandby]]:
    try:
        primary = servers.postgresql()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with primary, primary.standby() as standby:
        yield primary, standby


@pytest.mark.server
def test_the_middleware_lets_the_next_request_see_what_this_one_wrote(
    late: tuple[PostgreSQLServer, PostgreSQLStandby],
) -> None:
    primary, standby = late
    read_your_writes._marks.set({})
    profile = Profile(name="docs", url=primary.url(), replicas=[{"port": standby.port}], replica_max_lag=False)
    with Registry.from_profile(profile) as db:
        app = FastAPI()
        exec(block("python", "middleware"), {"db": db, "app": app, "run_in_threadpool": run_in_threadpool})

        @app.post("/")
        def write() -> int:
            with db.transaction() as session:
                remark = Remark()
                session.add(remark)
                session.flush()
                assert remark.id is not None
                return remark.id

        @app.get("/{number}")
        def read(number: int) -> bool:
            with db.session(read_only=True) as session:
                return session.get(Remark, number) is not None

        @app.get("/both/")
        def both() -> bool:
            return read(write())

        contextvars.Context().run(db.create_tables, Remark)
        standby.catch_up()
        standby.sql("SELECT pg_wal_replay_pause()")
        with TestClient(app) as writer, TestClient(app) as stranger:
            number = writer.post("/").json()
            assert len(writer.cookies["written"]) < 150  # a header of every request
            assert writer.get(f"/{number}").json() is True
            assert stranger.get(f"/{number}").json() is False
            assert stranger.get("/both/").json() is True
            stranger.cookies.clear()
            stranger.cookies.set("written", "nonsense")
            assert stranger.get(f"/{number}").json() is False
