"""A transaction of MySQL or MariaDB that begins as XA: which statements are sent, one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dbconfig.engine.dialects.mysql import xa


class Failure(Exception):
    """An error of the driver."""


class Connection:
    """SQLAlchemy's connection and the driver's in one: keeps what is sent."""

    def __init__(self, version: tuple[int, ...] = (11, 4), *, mariadb: bool = True) -> None:
        self.info: dict[str, Any] = {}
        self.sent: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.rows: list[Any] = []
        self.closed = self.invalidated = False
        self.dialect = SimpleNamespace(
            server_version_info=version,
            is_mariadb=mariadb,
            loaded_dbapi=SimpleNamespace(Error=Failure),
            do_commit=lambda connection: connection.sent.append("COMMIT"),
            do_rollback=lambda connection: connection.sent.append("ROLLBACK"),
        )
        xa.attach(SimpleNamespace(dialect=self.dialect))  # type: ignore[arg-type]  # all that it asks of an engine
        self.connection = self

    def cursor(self) -> Connection:
        return self

    def close(self) -> None: ...

    def execute(self, statement: str) -> None:
        self.exec_driver_sql(statement)

    def exec_driver_sql(self, statement: str) -> list[Any]:
        self.sent.append(statement.replace(self.name, "NAME") if self.name else statement)
        for begin, error in self.fails.items():
            if statement.startswith(begin):
                raise error
        return self.rows

    @property
    def name(self) -> str:
        return str(self.info.get(xa._BEGUN) or "")

    def invalidate(self) -> None:
        self.invalidated = True

    def begun(self) -> Any:
        xa.begin(self)  # type: ignore[arg-type]  # all that it asks of a connection
        self.sent.clear()
        return self


def test_a_transaction_begins_and_ends_in_one_phase_where_there_is_no_other() -> None:
    connection: Any = Connection()
    xa.begin(connection)
    assert connection.sent == [f"XA START '{connection.name}'"]
    assert xa.name_of(connection) == connection.name
    connection.sent.clear()
    connection.dialect.do_commit(connection)
    assert connection.sent == ["XA END 'NAME'", "XA COMMIT 'NAME' ONE PHASE"]
    assert xa.name_of(connection) is None
    connection.sent.clear()
    connection.dialect.do_commit(connection)
    connection.dialect.do_rollback(connection)
    assert connection.sent == ["COMMIT", "ROLLBACK"]


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_rolled_back_also_where_a_deadlock_has_ended_it(fails: bool) -> None:
    connection = Connection().begun()
    if fails:
        connection.fails["XA END"] = Failure(1399)
    connection.dialect.do_rollback(connection)
    assert connection.sent == ["XA END 'NAME'", "XA ROLLBACK 'NAME'"]
    assert xa.name_of(connection) is None


@pytest.mark.parametrize("verb", ["COMMIT", "ROLLBACK"])
def test_what_is_prepared_waits_for_its_end_whatever_becomes_of_the_connection(verb: str) -> None:
    connection = Connection().begun()
    name = connection.name
    xa.prepare(connection, name)
    assert connection.sent == ["XA END 'NAME'", "XA PREPARE 'NAME'"]
    connection.sent.clear()
    connection.dialect.do_rollback(connection)
    assert (connection.sent, connection.invalidated) == ([], True)
    other: Any = Connection()
    xa.finish(other, verb, name)
    assert other.sent == [f"XA {verb} '{name}'"]
    xa.finish(connection, verb, name)
    assert connection.info == {}


@pytest.mark.parametrize("attribute", ["closed", "invalidated"])
def test_a_connection_that_is_gone_is_in_none(attribute: str) -> None:
    connection = Connection().begun()
    setattr(connection, attribute, True)
    assert xa.name_of(connection) is None


@pytest.mark.parametrize(
    ("version", "mariadb", "begins"),
    [
        ((10, 5), True, True),
        ((10, 4, 30), True, False),
        ((8, 0, 31), True, False),
        ((8, 0, 31), False, True),
        ((8, 0, 30), False, False),
        ((9, 7), False, True),
    ],
)
def test_only_a_server_on_which_another_connection_can_finish_it_is_asked(
    version: tuple[int, ...], mariadb: bool, begins: bool
) -> None:
    connection: Any = Connection(version, mariadb=mariadb)
    xa.begin(connection)
    assert bool(connection.sent) is begins


@pytest.mark.parametrize("number", [1399, 1400])
def test_a_transaction_that_has_begun_already_stays_as_it_is(number: int) -> None:
    connection: Any = Connection()
    connection.fails["XA START"] = Failure(number, "the command cannot be executed")
    xa.begin(connection)
    assert xa.name_of(connection) is None


@pytest.mark.parametrize("arguments", [(1064, "syntax"), ()])
def test_another_error_of_its_begin_is_the_callers(arguments: tuple[Any, ...]) -> None:
    connection: Any = Connection()
    connection.fails["XA START"] = Failure(*arguments)
    with pytest.raises(Failure):
        xa.begin(connection)


@pytest.mark.parametrize(
    ("arguments", "mariadb", "listed", "done"),
    [
        ((1397, "unknown"), False, [], True),
        ((1397, "unknown"), True, [], True),
        ((1397, "unknown"), True, [(1, 8, 0, b"other")], True),
        ((1397, "unknown"), True, [(1, 8, 0, b"mine")], False),
        ((1397, "unknown"), True, [(1, 8, 0, "mine")], False),
        ((1398, "read only"), False, [], False),
        ((), False, [], False),
    ],
)
def test_an_unknown_name_means_that_it_was_finished_before(
    arguments: tuple[Any, ...], mariadb: bool, listed: list[Any], done: bool
) -> None:
    connection: Any = Connection(mariadb=mariadb)
    connection.rows = listed
    assert xa.is_done(connection, Failure(*arguments), "mine") is done
