"""PyMySQL: an answer that nobody has read reaches nobody, in raw use of the driver as well."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from dbconfig import Profile, Registry

pymysql = pytest.importorskip("pymysql.connections")


class Limit(Exception):
    """What a signal handler raises."""


def interrupt_the_next_answer(monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        raise Limit

    monkeypatch.setattr(pymysql.Connection, reader, interrupted)


@pytest.mark.parametrize("statement", ["SELECT 'of the first'", "DO 1", "COMMIT", "ROLLBACK"])
def test_an_interrupted_raw_statement_costs_its_connection(
    mariadb: Any, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    profile = Profile(name="tests", url=mariadb.url("mysql+pymysql"), pool_size=1, max_overflow=0)
    with Registry.from_profile(profile) as db:
        raw = db.engine().raw_connection()
        cursor = raw.cursor()
        cursor.execute("SELECT 1")
        reader = "_read_ok_packet" if statement in ("COMMIT", "ROLLBACK") else "_read_query_result"
        interrupt_the_next_answer(monkeypatch, reader)
        with pytest.raises(Limit):
            {"COMMIT": raw.commit, "ROLLBACK": raw.rollback}.get(statement, lambda: cursor.execute(statement))()
        raw.close()
        for number in (101, 102, 103):
            with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                assert connection.scalar(text(f"SELECT {number}")) == number
