"""The application's own class of sessions, and plain SQLAlchemy without SQLModel."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, String, select
from sqlalchemy.ext.asyncio import AsyncSession as PlainAsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlmodel import Session as SQLModelSession
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from dbconfig import Profile, Registry
from dbconfig.sessions.session import Committing, ReadOnlySession, SnapshotSession, UnitOfWork


class Base(DeclarativeBase):
    metadata = MetaData()


class Hero(Base):
    __tablename__ = "plain_hero"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


class Counting(Session):
    """A class as an application has one: it does something at each commit."""

    commits = 0

    def commit(self) -> None:
        type(self).commits += 1
        Counting.commits += 1
        super().commit()

    def names(self) -> list[str]:
        return list(self.scalars(select(Hero.name)))


class CountingAsync(PlainAsyncSession):
    async def names(self) -> list[str]:
        return list(await self.scalars(select(Hero.name)))


def opened(folder: Path, **options: Any) -> Registry:
    return Registry.from_profile(Profile(name="plain", url=f"sqlite:///{folder}/plain.db"), **options)


@pytest.fixture(autouse=True)
def _none_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "commits", 0)  # what other tests have counted, in whatever order


def test_every_kind_of_session_is_of_the_class(tmp_path: Path) -> None:
    with opened(tmp_path, session_class=Counting) as db:
        db.create_tables(Base)
        with db.transaction() as session:
            assert isinstance(session, Counting)
            assert isinstance(session, Committing)
            assert not isinstance(session, SQLModelSession)
            session.add(Hero(name="Ada"))
        assert Counting.commits == 1
        db.run_in_transaction(lambda session: session.add(Hero(name="Grace")))
        assert Counting.commits == 2
        kinds: list[type] = []
        db.run_in_transaction(lambda session: kinds.append(type(session)))
        assert set(kinds[0].__mro__) >= {Counting, UnitOfWork}
        with db.session() as session:
            assert type(session) is Counting
            assert session.names() == ["Ada", "Grace"]
        with db.session(read_only=True) as session, db.session(snapshot=True) as other:
            assert set(type(session).__mro__) >= {Counting, ReadOnlySession}
            assert set(type(other).__mro__) >= {Counting, SnapshotSession}
            assert session.names() == other.names() == ["Ada", "Grace"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, SQLModelAsyncSession),
        ({"session_class": Session}, PlainAsyncSession),
        ({"session_class": Counting, "async_session_class": CountingAsync}, CountingAsync),
    ],
)
def test_asynchronous_sessions_are_of_the_twin_of_the_class(
    tmp_path: Path, options: dict[str, Any], expected: type
) -> None:
    pytest.importorskip("aiosqlite")

    async def run() -> None:
        db = opened(tmp_path, **options)
        await db.async_create_tables(Base.metadata)
        async with db.async_transaction() as session:
            assert type(session) is expected
            assert isinstance(session.sync_session, options.get("session_class", SQLModelSession))
            session.add(Hero(name="Ada"))
        async with db.async_session(read_only=True) as session:
            assert type(session) is expected
            assert await session.run_sync(lambda own: list(own.scalars(select(Hero.name)))) == ["Ada"]
        await db.async_dispose()

    asyncio.run(run())


def test_execute_of_a_plain_session_is_not_deprecated(tmp_path: Path) -> None:
    with opened(tmp_path, session_class=Session) as db, warnings.catch_warnings():
        warnings.simplefilter("error")
        db.create_tables(Base)
        for session in (db.session(), db.session(read_only=True)):
            with session:
                assert session.execute(select(Hero)).all() == []
                assert not hasattr(type(session).execute, "__deprecated__")


@pytest.mark.parametrize("wrong", [int, "Session", PlainAsyncSession])
def test_a_class_that_is_none_of_sessions_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"session_class must be a subclass of sqlalchemy\.orm\.Session"):
        Registry(session_class=wrong)
    with pytest.raises(TypeError, match="async_session_class must be a subclass"):
        Registry(async_session_class=Session)
