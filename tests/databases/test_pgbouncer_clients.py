"""Many clients of a real PgBouncer in transaction mode: nobody gets another's rows, or another's settings."""

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlmodel import Session

from tests.pooled import Job, Kind
from tests.support.pgbouncer import pgbouncer
from tests.support.postgresql import PostgreSQLServer

WAYS = pytest.mark.parametrize(
    "how", [{}, {"read_only": True}, {"snapshot": True}], ids=["session", "read_only", "snapshot"]
)
SETTINGS = {
    "one": {"statement_timeout": "70s", "variables": {"search_path": "public, pg_catalog", "work_mem": "5MB"}},
    "other": {"statement_timeout": "90s", "variables": {"search_path": "pg_catalog", "work_mem": "6MB", "jit": "off"}},
}
IN_FORCE = "current_setting('statement_timeout'), current_setting('search_path'), current_setting('work_mem')"
EXPECTED = {"one": ("70s", "public, pg_catalog", "5MB"), "other": ("90s", "pg_catalog", "6MB")}


@WAYS
def test_a_thousand_answers_are_the_asked_ones_under_the_clients_own_settings(
    kind: Kind, postgresql: PostgreSQLServer, how: dict[str, bool]
) -> None:
    """32 clients of two registries share four server connections."""

    def client(number: int, name: str) -> Callable[[Session], list[tuple[object, object]]]:
        # A statement of its own for each client, seen again and again: the ones that would be prepared.
        statement = text(f"SELECT CAST(:given AS integer) + {number * 1000}, {IN_FORCE}")

        def work(session: Session) -> list[tuple[object, object]]:
            return [
                (tuple(session.execute(statement, {"given": turn}).one()), (number * 1000 + turn, *EXPECTED[name]))
                for turn in range(10)  # psycopg would prepare the sixth
            ]

        return work

    with pgbouncer(postgresql, size=4) as shared, kind.registries(postgresql, shared.port) as open_:
        jobs = []
        for name, settings in SETTINGS.items():
            db = open_(pool_size=16, max_overflow=0, **settings)
            jobs += [Job(db, client(len(jobs) + number, name), how, sessions=4) for number in range(16)]
        answers = [pair for job in kind.at_once(jobs) for session in job for pair in session]
        assert len(postgresql.connections()) <= 4
    assert len(answers) == 2 * 16 * 4 * 10
    assert [pair for pair in answers if pair[0] != pair[1]] == []


@WAYS
def test_rows_are_streamed_to_several_clients_at_the_same_time(
    kind: Kind, postgresql: PostgreSQLServer, how: dict[str, bool]
) -> None:
    def client(number: int) -> Callable[[Session], list[int]]:
        statement = text(f"SELECT {number} + generate_series(1, 2000)")
        return lambda session: list(session.execute(statement, execution_options={"yield_per": 200}).scalars())

    with pgbouncer(postgresql, size=4) as shared, kind.registries(postgresql, shared.port) as open_:
        db = open_(pool_size=8, statement_timeout="20s")
        numbers = range(0, 80_000, 10_000)
        found = kind.at_once([Job(db, client(number), how, sessions=3) for number in numbers])
    for number, streams in zip(numbers, found, strict=True):
        assert streams == [list(range(number + 1, number + 2001))] * 3


def test_statements_in_autocommit_are_answered_on_whatever_connection_they_run(
    kind: Kind, postgresql: PostgreSQLServer
) -> None:
    """asyncpg parses in one message and executes in the next, which here meet two servers."""

    def client(number: int) -> Callable[[Session], list[tuple[object, object]]]:
        statement = text(f"SELECT CAST(:given AS integer) + {number * 1000}, pg_backend_pid()")
        return lambda session: [
            (session.execute(statement, {"given": turn}).first()[0], number * 1000 + turn) for turn in range(50)
        ]

    with pgbouncer(postgresql, size=4) as shared, kind.registries(postgresql, shared.port) as open_:
        db = open_(isolation_level="AUTOCOMMIT", pool_size=8)
        found = kind.at_once([Job(db, client(number), {}, sessions=4) for number in range(8)])
    answers = [pair for job in found for session in job for pair in session]
    assert len(answers) == 8 * 4 * 50
    assert [pair for pair in answers if pair[0] != pair[1]] == []
