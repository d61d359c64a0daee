"""The same verbs for threads and for event loops, and synchronous ones on a driver that is only asynchronous."""

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from dbconfig import ConfigError, PoolStats, Profile, Registry
from tests.registries import Hero, Team, registry
from tests.support.drivers import DRIVERS, SERVED, Driver
from tests.support.ports import free_port
from tests.support.server import Server

Verbs = Callable[..., Any]


def verb(db: Registry, style: str) -> Verbs:
    """Return what calls a verb: of threads, its twin in an event loop, or the synchronous one on any driver."""

    def call(name: str, *arguments: Any, **keywords: Any) -> Any:
        if style == "sync":
            return getattr(db, name)(*arguments, **keywords)

        async def twin() -> Any:
            return await getattr(db, f"async_{name}")(*arguments, **keywords)

        return asyncio.run(twin())

    return call


def styles(drivers: Iterable[Driver]) -> list[Any]:
    """Each driver with its verbs; the synchronous ones drive a loop of their own for a driver of tasks."""
    return [
        pytest.param(each, style, id=f"{each.name}-{style}", marks=each.marks)
        for each in drivers
        for style, has_it in (("sync", each.name != "psycopg-async"), ("async", each.asynchronous or not each.server))
        if has_it
    ]


@pytest.mark.parametrize(("driver", "style"), styles(DRIVERS))
def test_tables_are_created_and_dropped(driver: Driver, style: str, request: pytest.FixtureRequest) -> None:
    with registry(driver.url(request)) as db:
        call = verb(db, style)
        assert call("create_tables", Hero, Team) == ["engine_team", "engine_hero"]
        assert call("create_tables", Hero) == []
        assert call("drop_tables", Hero, Team) == ["engine_hero", "engine_team"]
        assert call("drop_tables", Hero, Team) == []


@pytest.mark.parametrize(("driver", "style"), styles(DRIVERS))
def test_a_database_that_answers_is_pinged_and_waited_for(
    driver: Driver, style: str, request: pytest.FixtureRequest
) -> None:
    with registry(driver.url(request)) as db:
        call = verb(db, style)
        assert 0 < call("ping", timeout=60.0) < 60
        assert call("wait", timeout=60.0) is None


@pytest.mark.parametrize(("driver", "style"), styles(SERVED))
def test_a_wrong_password_is_told_at_once_and_a_server_that_is_away_in_time(
    driver: Driver, style: str, request: pytest.FixtureRequest
) -> None:
    wrong = driver.url(request, password="wrong")
    with registry(wrong) as db, pytest.raises(Exception) as refused:  # looked at below
        verb(db, style)("wait", timeout=600.0)
    assert not isinstance(refused.value, TimeoutError)
    assert any("password" in note.lower() for note in getattr(refused.value, "__notes__", ()))
    away = driver.url(request, host="127.0.0.1", port=free_port())
    with registry(away) as db, pytest.raises(TimeoutError, match=r"did not answer within 2 s") as late:
        verb(db, style)("wait", timeout=2.0)  # for the one answer that it takes, on a busy machine too
    assert isinstance(late.value.__cause__, (DBAPIError, OSError))


@pytest.mark.parametrize("style", ["sync", "async"])
def test_a_protected_database_keeps_its_tables(style: str) -> None:
    with registry("sqlite://", protected=True) as db, pytest.raises(ConfigError, match="protected"):
        verb(db, style)("drop_tables", Hero)


@pytest.mark.parametrize("name", ["create_tables", "drop_tables", "ping", "wait"])
def test_within_a_loop_the_synchronous_verb_says_which_to_await(name: str, tmp_path: Path) -> None:
    pytest.importorskip("aiosqlite")

    async def main() -> None:
        with pytest.raises(RuntimeError, match=rf"aiosqlite is an asynchronous driver: use await async_{name}\(\)"):
            getattr(db, name)(*([Hero] if "tables" in name else []))

    with registry(f"sqlite+aiosqlite:///{tmp_path}/app.db") as db:
        asyncio.run(main())


def test_several_loops_that_create_at_once_create_once(postgresql: Server) -> None:
    pytest.importorskip("asyncpg")
    with registry(postgresql.url("postgresql+asyncpg")) as db:

        async def main() -> list[list[str]]:
            return await asyncio.gather(*(db.async_create_tables(Hero, Team) for _ in range(5)))

        created = sorted(asyncio.run(main()))
        assert created == [[]] * 4 + [["engine_team", "engine_hero"]]


# Statistics


def shown(found: list[PoolStats]) -> dict[str, tuple[int, int]]:
    return {each.name.rpartition(", event loop")[0] or each.name: (each.used, each.idle) for each in found}


def test_all_pools_are_told_by_name(tmp_path: Path) -> None:
    pytest.importorskip("aiosqlite")
    profile = Profile(name="shop", url=f"sqlite:///{tmp_path}/a.db", databases={"facts": {"url": "sqlite://"}})
    with Registry.from_profile(profile) as db:
        assert db.all_stats() == []
        with db.session() as session, db.session("facts") as facts, db.session(read_only=True) as reading:
            for each in (session, facts, reading):
                each.connection()

            async def main() -> list[PoolStats]:
                async with db.async_session() as one, db.async_session(read_only=True) as other:
                    await one.connection()
                    await other.connection()
                    assert db.stats().used == 1
                    return db.all_stats()

            found = asyncio.run(main())
        names = [each.name.rstrip("0123456789") for each in found]
        loop = ", event loop "
        assert names == ["shop", f"shop{loop}", "shop/facts", "shop/reads", f"shop/reads{loop}"]
        assert {each.used for each in found} == {1}
        assert json.loads(json.dumps([each.as_dict() for each in found]))[0]["wait"]["count"] >= 0
        # The loop has ended, and its pools with it.
        assert [each.name for each in db.all_stats()] == ["shop", "shop/facts", "shop/reads"]


def test_statistics_in_a_coroutine_are_of_the_loops_pool_and_make_no_second_engine(tmp_path: Path) -> None:
    pytest.importorskip("aiosqlite")
    with registry(f"sqlite:///{tmp_path}/app.db") as db:

        async def main() -> None:
            async with db.async_session() as session:
                await session.connection()
                assert db.stats().used == 1
            assert len(db.parts.engines) == 0

        asyncio.run(main())


def test_statistics_of_an_asynchronous_driver_outside_of_a_loop_say_where_they_are(tmp_path: Path) -> None:
    pytest.importorskip("aiosqlite")
    with (
        registry(f"sqlite+aiosqlite:///{tmp_path}/app.db") as db,
        pytest.raises(RuntimeError, match=r"use all_stats\(\), or stats\(\) in a coroutine, not stats\(\)"),
    ):
        db.stats()
