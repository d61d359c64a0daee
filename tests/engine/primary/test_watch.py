"""What looks for the primary while connections wait for a server that stands still."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, exc

from dbconfig import Profile, Registry
from dbconfig.engine.dialects.error_table import JUDGED, LOGIN_REJECTED, NO_PRIMARY, Meaning
from dbconfig.engine.pool.place import Place
from dbconfig.engine.pool.record import Record
from dbconfig.engine.primary import watch as primary
from dbconfig.engine.primary.watch import HEALTHY, HELD


def failed(meaning: Meaning) -> Exception:
    error = exc.OperationalError("connect", None, Exception("nobody"))
    setattr(error, JUDGED, meaning)
    return error


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """How each search ends, the next one first; without an error the primary is found."""
    ends: list[Exception | None] = []
    connect = primary._connect

    def search(engine: Engine) -> Any:
        end = ends.pop(0)
        if end is not None:
            raise end
        return connect(engine)

    monkeypatch.setattr(primary, "_connect", search)
    return ends


def look(style: str, folder: Path) -> Any:
    """Run one look, with a connection in use; return the watch."""
    with Registry.from_profile(Profile(name="watched", url=f"sqlite:///{folder}/watched.db")) as db:
        if style == "sync":
            with db.engine().connect():
                watch = primary.Watch(db.engine(), None)  # type: ignore[arg-type]
                watch._look(db.engine())
            return watch

        async def main() -> Any:
            async with db.async_engine().connect():
                engine = db.async_engine().sync_engine
                watch = primary.Watch(engine, None)  # type: ignore[arg-type]
                await watch._async_look(engine)
            await db.async_dispose()
            return watch

        return asyncio.run(main())


@pytest.mark.parametrize("style", ["sync", "async"])
def test_while_a_connection_waits_one_search_follows_the_other_until_the_primary_is_found(
    style: str, tmp_path: Path, searches: list[Exception | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primary, "HELD", -1.0)
    searches += [failed(NO_PRIMARY), failed(NO_PRIMARY), None]
    watch = look(style, tmp_path)
    assert searches == []
    assert watch._quiet_until > 0.0


@pytest.mark.parametrize("style", ["sync", "async"])
def test_where_nobody_waits_any_more_or_more_searches_would_not_help_there_is_one(
    style: str, tmp_path: Path, searches: list[Exception | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches += [failed(NO_PRIMARY), None]
    assert look(style, tmp_path)._quiet_until == 0.0
    assert searches == [None]
    monkeypatch.setattr(primary, "HELD", -1.0)
    searches[:] = [failed(LOGIN_REJECTED), None]
    assert look(style, tmp_path)._quiet_until == 0.0
    assert searches == [None]


class Books:
    """Of an engine whose connections are held and returned as a test says."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.returned: list[float] = []

    def holders(self) -> list[Any]:
        return [SimpleNamespace(seconds=each) for each in self.seconds]

    def live(self) -> list[Any]:
        found = []
        for each in self.returned:
            record = object.__new__(Record)
            record.place = Place(each, 0)
            found.append(record)
        return found


def test_a_look_is_due_when_a_connection_is_held_and_no_other_one_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books()
    monkeypatch.setattr(primary.pool, "ledger", lambda engine: books)
    engine: Any = books
    watch = primary.Watch(engine, None)  # type: ignore[arg-type]  # no search here

    def wait(now: float) -> float:
        return watch._wait(engine, now)

    assert wait(100.0) == HELD
    books.seconds = [HELD / 4, HELD / 2]
    assert wait(100.0) == pytest.approx(HELD / 2)  # exactly then, not at the next round
    books.seconds = [HELD]
    assert wait(100.0) <= 0
    watch._looked_at, watch._quiet_until = 100.0, 100.0 + HEALTHY
    assert wait(101.0) == pytest.approx(HEALTHY - 1.0)
    books.returned = [99.0]
    assert wait(101.0) == pytest.approx(HEALTHY - 1.0)
    books.returned = [99.0, 100.5]  # it was at work after the look, and may have fallen silent since
    assert wait(101.0) == pytest.approx(0.5 + HELD - 1.0)
    assert wait(100.5 + HELD) <= 0
    books.returned = [100.0 + HEALTHY]  # never later than without a sign of life
    assert wait(100.0 + HEALTHY) <= 0
