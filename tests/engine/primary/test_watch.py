"""What looks for the primary while connections wait for a server that stands still."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, exc

from dbconfig import Profile, Registry
from dbconfig.engine import primary
from dbconfig.engine.dialects.error_table import JUDGED, LOGIN_REJECTED, NO_PRIMARY, Meaning


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
                watch = primary._Watch(db.engine(), None)  # type: ignore[arg-type]
                watch._look(db.engine())
            return watch

        async def main() -> Any:
            async with db.async_engine().connect():
                engine = db.async_engine().sync_engine
                watch = primary._Watch(engine, None)  # type: ignore[arg-type]
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
