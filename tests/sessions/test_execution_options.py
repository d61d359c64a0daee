"""Execution options of one session, and sessions of one tenant among several: one pool, and nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Field, MetaData, Session, SQLModel, select

from dbconfig import Registry
from tests.sessions.conftest import Units, Work, _in_task

TENANT = "tenant_a"
HOSTILE = 'tenant "b"`; DROP TABLE x'


class Base(SQLModel):
    metadata = MetaData()


class Item(Base, table=True):
    __tablename__ = "tenant_item"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40)


def within(units: Units, db: Registry, work: Work, verb: str = "session", **how: Any) -> Any:
    """Return what a function of a session returns."""
    if verb == "run_in_transaction":
        return db.run_in_transaction(work, **how)
    with getattr(db, verb)(**how) as session:
        return work(session)


async def within_task(db: Registry, work: Work, verb: str = "session", **how: Any) -> Any:
    if verb == "run_in_transaction":

        async def awaited(session: Any) -> Any:
            return await session.run_sync(work)

        return await db.async_run_in_transaction(awaited, **how)
    async with getattr(db, f"async_{verb}")(**how) as session:
        return await session.run_sync(work)


def steps(units: Units, *calls: tuple[Work, dict[str, Any]], **settings: Any) -> list[Any]:
    """Return what each call returns, all on one pool of one connection."""
    with units.open(pool_size=1, max_overflow=0, **settings) as db:
        if not units.asynchronous:
            return [within(units, db, work, **how) for work, how in calls]

        async def run() -> list[Any]:
            return [await within_task(db, work, **how) for work, how in calls]

        return list(asyncio.run(_in_task(db, run)))


def add(name: str) -> Work:
    def work(session: Session) -> None:
        session.add(Item(name=name))
        session.flush()

    return work


def names(session: Session) -> list[str]:
    return sorted(session.exec(select(Item.name)))


@pytest.fixture
def tenants(units: Units, request: pytest.FixtureRequest) -> Iterator[Units]:
    """Each driver with two schemas (on MySQL, databases), one of which has a name that has to be quoted."""
    if units.system == "sqlite":
        pytest.skip("SQLite has no schemas: a tenant is a file of its own there")
    server = request.getfixturevalue(units.system)
    with ExitStack() as stack:
        for schema in (TENANT, HOSTILE):
            if units.system == "mariadb":
                server.create_database(schema)
                stack.callback(server.drop_database, schema)
            else:
                quoted = schema.replace('"', '""')
                units.sql(f'CREATE SCHEMA "{quoted}"')
        with units.open() as db:
            if units.asynchronous:

                async def create() -> None:
                    for schema in (TENANT, HOSTILE, None):
                        assert await db.async_create_tables(Base, schema=schema) == ["tenant_item"]

                asyncio.run(_in_task(db, create))
            else:
                for schema in (TENANT, HOSTILE, None):
                    assert db.create_tables(Base, schema=schema) == ["tenant_item"]
        yield units


@pytest.mark.parametrize("verb", ["transaction", "run_in_transaction"])
def test_each_tenant_has_its_rows_and_all_share_one_pool(tenants: Units, verb: str) -> None:
    found = steps(
        tenants,
        (add("a"), {"verb": verb, "schema": TENANT}),
        (add("b"), {"verb": verb, "schema": HOSTILE}),
        (add("none"), {"verb": verb}),
        (names, {"schema": TENANT}),
        (names, {"schema": HOSTILE}),
        (names, {}),
        (names, {"schema": TENANT, "read_only": True}),
        (names, {"schema": HOSTILE, "snapshot": True}),
        (names, {"read_only": True}),
    )
    assert found[3:] == [["a"], ["b"], ["none"], ["a"], ["b"], ["none"]]


def test_a_session_that_goes_on_after_a_commit_keeps_its_tenant(tenants: Units) -> None:
    def work(session: Session) -> list[str]:
        session.add(Item(name="first"))
        session.commit()
        session.add(Item(name="second"))
        session.commit()
        return names(session)

    assert steps(tenants, (work, {"schema": TENANT}), (names, {})) == [["first", "second"], []]


@pytest.mark.parametrize("wrong", ["", " tenant", "a\0b", "a\nb", "ä" * 40])
def test_a_name_that_cannot_be_a_schemas_is_refused_before_anything_runs(wrong: str) -> None:
    for verb in ("session", "transaction"):
        with pytest.raises(ValueError, match="cannot be the name of a schema"):
            getattr(Registry(), verb)(schema=wrong)
    with pytest.raises(TypeError, match="a schema's name is text, not int"):
        Registry().session(schema=5)  # type: ignore[arg-type]


def test_execution_options_are_those_of_the_session_alone(units: Units) -> None:
    def option(session: Session) -> Any:
        return session.connection().get_execution_options().get("logging_token")

    calls = [(option, {"verb": verb, "execution_options": {"logging_token": "T"}}) for verb in VERBS]
    assert steps(units, *calls, (option, {}), (option, {"verb": "transaction"})) == ["T", "T", "T", None, None]


VERBS = ("session", "transaction", "run_in_transaction")


@pytest.mark.parametrize("verb", VERBS)
def test_an_isolation_level_ends_with_the_session(units: Units, verb: str) -> None:
    if units.system == "sqlite":
        pytest.skip("SQLite's levels differ for databases in memory only")

    def level(session: Session) -> str:
        ask = {"postgresql": "SHOW transaction_isolation", "mariadb": "SELECT @@tx_isolation"}
        return str(session.execute(text(ask[units.system])).scalar_one()).upper().replace("-", " ")

    usual = steps(units, (level, {}))[0]
    assert usual != "SERIALIZABLE"
    how = {"verb": verb, "execution_options": {"isolation_level": "SERIALIZABLE"}}
    assert steps(units, (level, how), (level, {}), (level, {"verb": "transaction"})) == ["SERIALIZABLE", usual, usual]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"execution_options": {"compiled_cache": None}}, "'compiled_cache' is not an option of a session"),
        ({"read_only": True, "execution_options": {"isolation_level": "SERIALIZABLE"}}, "its own isolation level"),
        ({"schema": "a", "execution_options": {"schema_translate_map": {}}}, "use only one of the two"),
    ],
)
def test_options_that_would_do_something_else_are_refused(how: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Registry().session(**how)


def test_a_nested_unit_of_another_tenant_has_a_transaction_of_its_own(postgresql_units: Units) -> None:
    if postgresql_units.asynchronous:
        pytest.skip("one rule for both, and the asynchronous one is looked at above")
    seen: list[Any] = []
    with postgresql_units.open() as db:

        def outer(session: Session) -> None:
            db.run_in_transaction(lambda inner: seen.append(inner is session), schema="tenant_a")
            db.run_in_transaction(lambda inner: seen.append(inner is session))

        db.run_in_transaction(outer)
    assert seen == [False, True]
