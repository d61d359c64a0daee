"""An interrupt at any point of a unit of work: the next one in its thread is neither joined to it nor lost."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from sqlalchemy import text

import dbconfig.sessions
from dbconfig import CommitUncertain, Profile, Registry
from dbconfig.sessions import nesting
from tests.support.strikes import Strike, sweep

SESSIONS = str(Path(dbconfig.sessions.__file__).parent)


def count(db: Registry, number: int) -> int:
    with db.session() as session:
        found: int = session.scalar(text(f"SELECT count(*) FROM t WHERE x = {number}"))
    return found


@pytest.mark.parametrize("url", ["sqlite", "postgresql+psycopg2"])
def test_a_unit_that_is_struck_leaves_none_that_the_next_could_join(
    url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    local = url == "sqlite"
    url = f"sqlite:///{tmp_path}/struck.db" if local else request.getfixturevalue("postgresql").url(url)
    with Registry.from_profile(Profile(name="struck", url=url)) as db:
        with db.transaction() as session:
            session.execute(text("CREATE TABLE t (x INT)"))

        def attempt(strike: Strike) -> bool:
            struck, after = strike.number * 2, strike.number * 2 + 1

            def unit(number: int) -> None:
                db.run_in_transaction(lambda session: session.execute(text(f"INSERT INTO t VALUES ({number})")))

            fell = True
            with contextlib.suppress(CommitUncertain):  # which is told
                fell = strike.during(lambda: unit(struck))
            assert not any(found.alive for found in nesting.found().values()), strike
            assert count(db, struck) <= 1, strike
            unit(after)
            assert count(db, after) == 1, f"{strike}: the next unit is lost"
            return fell

        assert sweep(attempt, SESSIONS) > 60
