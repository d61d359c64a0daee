"""A COMMIT that fails ends its transaction: nothing of it is left for who uses the connection next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.support.drivers import of
from tests.worlds import World, worlds


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(request.param, request, tmp_path)
    yield made
    made.end()


@worlds(of("postgresql"))
def test_a_commit_that_is_refused_leaves_no_failed_transaction_to_the_next(world: World) -> None:
    db = world.open()

    def work(session: Any) -> None:
        with pytest.raises(DBAPIError):
            session("SELECT 1 / 0")
        with pytest.raises(DBAPIError):
            session.session.commit()  # and no rollback: the session is closed

    world.run(work, db)
    assert world.do(db) == 1
    assert world.created(db) == 1


@worlds([*of("postgresql"), *of("")])
def test_a_commit_that_fails_leaves_nothing_to_the_next(world: World) -> None:
    db = world.open()

    def create(session: Any) -> None:
        session("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        session("CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")

    def work(session: Any) -> None:
        session("INSERT INTO child VALUES (4711)")
        with pytest.raises(IntegrityError):
            session.session.commit()

    def save(session: Any) -> None:
        session("INSERT INTO parent VALUES (1)")

    world.run(create, db, transaction=True)
    world.run(work, db)
    world.run(save, db, transaction=True)  # which is told nothing of the error before
    assert world.do(db, "SELECT count(*) FROM child") == 0
    assert world.do(db, "SELECT count(*) FROM parent") == 1
    assert world.created(db) == 1
