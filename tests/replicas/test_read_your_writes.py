"""Tokens and positions: what a server must have to be read from."""

import contextvars
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine

from dbconfig import Profile
from dbconfig.replicas import positions
from dbconfig.replicas.positions import _MARIADB, _MYSQL, _POSTGRESQL, CannotKnow, Positions, _without_header
from dbconfig.replicas.read_your_writes import Mark, attach, from_token, marks, note, scope, to_token, watch_commits


@pytest.mark.parametrize(
    ("positions", "seen", "needed", "enough"),
    [
        (_POSTGRESQL, "0/2000", "0/1FFF", True),
        (_POSTGRESQL, "0/2000", "0/2000", True),
        (_POSTGRESQL, "0/FFFFFFFF", "1/0", False),
        (_POSTGRESQL, "2/0", "1/FFFFFFFF", True),
        (_POSTGRESQL, "0/2000", "00000001:0/1FFF", True),  # of a standby
        (_POSTGRESQL, "00000001:0/2000", "00000001:0/1FFF", True),  # of the primary itself
        (_POSTGRESQL, "00000002:0/2000", "00000001:0/1FFF", False),  # of one that was promoted
        (_POSTGRESQL, "77/:0/2000", "77/00000001:0/1FFF", True),  # of a standby of this system
        (_POSTGRESQL, "78/:0/2000", "77/00000001:0/1FFF", False),  # of one of another system
        (_POSTGRESQL, "78/00000001:0/2000", "77/00000001:0/1FFF", False),
        (_POSTGRESQL, "77/00000002:0/2000", "77/00000001:0/1FFF", False),
        (_MARIADB, "0-1-100", "0-1-100", True),
        (_MARIADB, "0-2-100", "0-1-99", True),  # another server was the primary since
        (_MARIADB, "0-1-100", "0-1-101", False),
        (_MARIADB, "0-1-100,5-1-7", "0-1-9,5-1-8", False),
        (_MARIADB, "0-1-100", "0-1-9,5-1-8", False),
        (_MARIADB, "wsrep:cluster:100", "wsrep:cluster:100", True),  # Galera
        (_MARIADB, "wsrep:cluster:99", "wsrep:cluster:100", False),
        (_MARIADB, "wsrep:cluster:100", "wsrep:another:7", False),
        (_MYSQL, "a:1-10", "a:1-10", True),
        (_MYSQL, "a:1-10", "a:1-11", False),
        (_MYSQL, "a:1-5:7-10", "a:6", False),
        (_MYSQL, "a:1-5,\nb:1-3", "b:3", True),
        (_MYSQL, "a:1-5", "b:1", False),
        (_MYSQL, "a:1-5:blue:1-3", "a:5", True),  # tags, of MySQL 8.3 and later
        (_MYSQL, "a:1-5:blue:1-3", "a:blue:2-3", True),
        (_MYSQL, "a:1-5:blue:1-3", "a:blue:4", False),
        (_MYSQL, "a:blue:1-9", "a:3", False),
        (_MYSQL, "a:1-5:7:blue:1-3:5:red_1:1,b:4", "a:7:blue:5:red_1:1", True),
    ],
)
def test_a_server_has_a_position_or_not(positions: Positions, seen: str, needed: str, enough: bool) -> None:
    assert positions.covers(positions.parse(seen), positions.parse(needed)) is enough


@pytest.mark.parametrize(
    ("seen", "needed", "why"),
    [
        ("77/00000001:0/1", "77/00000001:0/9", ""),
        ("77/00000001:0/9", "77/00000001:0/1", ""),
        ("77/:0/9", "77/00000001:0/1", ""),  # of a standby, which does not tell its timeline
        ("77/00000001:0/9", "77/:0/1", ""),
        ("0/9", "77/00000001:0/1", ""),
        ("77/00000001:0/9", "0/1", ""),
        ("78/00000001:0/9", "77/00000001:0/9", positions.OTHER_SYSTEM),
        ("77/00000002:0/9", "77/00000001:0/9", "it was promoted, and no longer follows this primary"),
    ],
)
def test_positions_of_two_histories_cannot_be_compared(seen: str, needed: str, why: str) -> None:
    assert _POSTGRESQL.parted(_POSTGRESQL.parse(seen), _POSTGRESQL.parse(needed)) == why


@pytest.mark.parametrize("system", [_MARIADB, _MYSQL])
def test_of_other_systems_all_positions_can_be_compared(system: Positions) -> None:
    assert system.parted({"a": 1}, {"b": 1}) == ""


@pytest.mark.parametrize(
    ("insert", "end"),
    [
        ("0/4000028", "0/4000000"),  # nothing in the segment yet
        ("1/4002018", "1/4002000"),  # nothing in the page yet
        ("0/4002028", "0/4002028"),  # the last 16 bytes of a record
        ("0/4000030", "0/4000030"),
        ("0/40000F8", "0/40000F8"),
        ("FF/FFFFFFF8", "FF/FFFFFFF8"),
    ],
)
def test_a_position_behind_a_page_header_is_the_end_of_the_page_before(insert: str, end: str) -> None:
    assert _without_header(insert, 8192, 16 * 2**20) == end


def test_a_token_says_what_it_was_made_of() -> None:
    mark = Mark(time.time() - 1, "0/3000060", True)
    token = to_token({"shop#1": mark})
    assert token.isascii()
    assert not set(token) & set("=;, \"'/+")  # fit for a cookie
    (found,) = from_token(token).values()
    assert found.position == mark.position
    assert found.at == pytest.approx(mark.at, abs=0.01)
    assert to_token({}) == ""
    assert from_token("") == {}


def test_a_token_is_as_short_as_a_millisecond_allows() -> None:
    token = to_token({"shop": Mark(1234.56789, "0/30")})
    assert json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4))) == {"shop": [1234.568, "0/30"]}


@pytest.mark.parametrize("token", ["x", "!!!", "bm90IGpzb24", "WzFd", "eyJhIjoxfQ", "é"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="not a token"):
        from_token(token)


@pytest.mark.parametrize(
    "plain", ["[" * 3000, '{"shop": [1' + "0" * 400 + ', ""]}', '{"shop": [NaN, ""]}', '{"shop": [Infinity, ""]}']
)
def test_a_token_that_somebody_made_to_break_us_is_refused(plain: str) -> None:
    with pytest.raises(ValueError, match="not a token"):
        from_token(urlsafe_b64encode(plain.encode()).decode())


def test_a_token_from_the_future_does_not_hold_for_ever() -> None:
    (found,) = from_token(to_token({"shop": Mark(time.time() + 10_000, "", True)})).values()
    assert found.at <= time.time()


def test_a_scope_ends_with_its_block() -> None:
    before = dict(marks())
    with scope({"shop": Mark(1.0)}):
        note("other", Mark(2.0))
        assert set(marks()) >= {"shop", "other"}
    assert marks() == before


def test_a_scope_of_an_older_token_forgets_nothing_that_its_task_has_written() -> None:
    now = time.time()
    with scope({"shop": Mark(now, "", False)}), scope({"shop": Mark(now - 5, "0/1", True)}):
        assert marks()["shop"] == Mark(now, "", False)
    with scope({"shop": Mark(now - 3600, "0/1", True)}), scope({"shop": Mark(now, "0/2", True)}):
        assert marks()["shop"] == Mark(now, "0/2", True)  # nothing is to be asked for what was written long before


def test_a_scope_may_be_left_in_another_context_than_it_was_entered_in() -> None:
    """FastAPI enters and leaves a synchronous dependency with `yield` in two copies of the request's context."""
    opened = scope({"shop": Mark(1.0)})
    inside = contextvars.copy_context()
    inside.run(opened.__enter__)
    assert set(inside.run(marks)) == {"shop"}
    contextvars.copy_context().run(opened.__exit__, None, None, None)
    assert marks() == {}


def test_scopes_within_each_other_end_one_by_one() -> None:
    with scope({"outer": Mark(1.0)}):
        with scope({"inner": Mark(2.0)}):
            assert set(marks()) == {"outer", "inner"}
        assert set(marks()) == {"outer"}
    assert marks() == {}


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_scopes_of_one_context_may_end_in_any_order(order: tuple[int, ...]) -> None:
    """As those of generators do that take turns."""

    def take_turns() -> None:
        blocks = [scope({str(number): Mark(1.0)}) for number in range(3)]
        for block in blocks:
            block.__enter__()
        for number in order:
            blocks[number].__exit__(None, None, None)
        assert marks() == {}
        note("later", Mark(2.0))
        contextvars.copy_context().run(lambda: note("in a copy", Mark(3.0)))
        assert set(marks()) == {"later"}, "no scope is left that a copy shares"

    contextvars.copy_context().run(take_turns)


def test_a_commit_that_failed_is_noted_without_a_position_so_that_only_the_primary_is_read() -> None:
    engine = create_engine("sqlite://")

    def lost(connection: object) -> None:
        raise ConnectionError("lost")

    engine.dialect.do_commit = lost  # type: ignore[method-assign]  # of this one engine
    watch_commits(engine, "shop#1")

    def commit() -> Mark:
        with pytest.raises(ConnectionError):
            engine.dialect.do_commit(None)  # type: ignore[arg-type]  # it raises before it looks at it
        return marks()["shop#1"]

    found = contextvars.copy_context().run(commit)
    assert found.asked  # nobody asks the primary for a position: the server may not be done with the COMMIT
    assert found.position == ""
    engine.dispose()


@pytest.mark.parametrize("way", ["do_commit", "do_commit_twophase"])
def test_a_commit_is_noted_and_its_position_is_asked_for_later(way: str) -> None:
    engine = create_engine("sqlite://")
    done: list[str] = []
    setattr(engine.dialect, way, lambda *_: done.append(way))
    watch_commits(engine, "shop#1")

    def commit() -> Mark:
        getattr(engine.dialect, way)(None)
        return marks()["shop#1"]

    found = contextvars.copy_context().run(commit)
    assert done == [way]
    assert not found.asked
    assert 0 <= time.time() - found.at < 60
    engine.dispose()


@pytest.mark.parametrize(
    ("replicas", "read_your_writes", "watched"),
    [(["replica"], True, True), (["replica"], False, False), ([], True, False), ([], False, False)],
)
def test_commits_are_watched_where_a_replica_could_be_behind_them(
    replicas: list[str], read_your_writes: bool, watched: bool
) -> None:
    written: dict[str, Any] = {"replicas": [{"host": host} for host in replicas]} if replicas else {}
    profile = Profile(name="x", url="postgresql://main/shop", read_your_writes=read_your_writes, **written)
    engine = create_engine("sqlite://")
    attach(engine, profile.databases["default"], "shop")
    assert ("do_commit" in vars(engine.dialect)) is watched
    engine.dispose()


# What a server tells


class Connection:
    """One whose server answers with a row, or does not."""

    def __init__(self, system: str, row: Any, driver: str = "psycopg2") -> None:
        self.dialect = SimpleNamespace(name=system, driver=driver)
        self.connection = self
        self.driver_connection = object()  # without a socket
        self.info: dict[str, Any] = {}
        self.row = row
        self.asked: list[str] = []
        self.invalidated = 0
        self.open_cursors = 0
        self.pgpool: BaseException | None = RuntimeError('unrecognized configuration parameter "pool_version"')

    def invalidate(self) -> None:
        self.invalidated += 1

    def cursor(self) -> "Connection":
        self.open_cursors += 1
        return self

    def execute(self, question: str) -> None:
        self.asked.append(question)
        if isinstance(self.row, BaseException):
            raise self.row
        if question == "SHOW pool_version" and self.pgpool is not None:
            raise self.pgpool

    def fetchone(self) -> Any:
        return self.row

    def close(self) -> None:
        self.open_cursors -= 1


@pytest.fixture(autouse=True)
def _number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "descriptor", lambda dialect, connection: None)
    monkeypatch.setattr(positions.driver, "of", lambda dialect: SimpleNamespace(number=lambda connection: 42))


@pytest.mark.parametrize(
    ("system", "row", "text", "name"),
    [
        ("postgresql", ("0/4000028", 8192, 16 * 2**20, "00000001", 42), "00000001:0/4000000", None),
        ("postgresql", ("0/20", "10.0.0.1 5432 1", 42), "0/20", "10.0.0.1 5432 1"),
        ("postgresql", (None, "10.0.0.1 5432 1", 42), "", "10.0.0.1 5432 1"),  # in recovery, and nothing replayed yet
        ("mysql", ("0-1-2",), "0-1-2", None),
        ("mysql", ("0-1-2", "db 3306 1"), "0-1-2", "db 3306 1"),
        ("mysql", ("", "db 3306 1"), "", "db 3306 1"),
        ("mysql", (None,), "", None),
        ("mysql", None, "", None),
    ],
)
def test_a_position_comes_with_the_server_that_has_it(system: str, row: Any, text: str, name: str | None) -> None:
    connection: Any = Connection(system, row)
    assert positions.ask(connection, "where are you?") == text
    assert positions.server_of(connection) == name
    assert connection.asked == ["where are you?"]
    assert (connection.open_cursors, connection.invalidated) == (0, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("gone")])
def test_a_question_that_is_broken_off_leaves_no_answer_for_the_next(error: BaseException) -> None:
    connection: Any = Connection("mysql", error)
    with pytest.raises(type(error)):
        positions.ask(connection, "where are you?")
    assert (connection.open_cursors, connection.invalidated) == (0, 1)


def test_a_server_that_does_not_answer_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        def call(self, fd: object, limit: float, *_: object) -> tuple[None, bool]:
            assert limit == positions.ANSWER_LIMIT
            return None, False

    monkeypatch.setattr(positions, "watch", Late())
    connection: Any = Connection("mysql", ("0-1-2",))
    with pytest.raises(TimeoutError, match="no answer within 2 s"):
        positions.ask(connection, "where are you?")
    assert connection.invalidated == 1


def test_a_pooler_that_is_not_pgpool_is_asked_once() -> None:
    connection: Any = Connection("postgresql", ("0/20", "10.0.0.1 5432 1", 7))  # a number that the driver does not know
    for _ in range(2):
        assert positions.ask(connection, "where are you?") == "0/20"
    assert connection.asked == ["where are you?", "SHOW pool_version", "where are you?"]
    assert connection.open_cursors == 0


@pytest.mark.parametrize("name", ["psycopg2", "psycopg"])
def test_behind_pgpool_nobody_can_know_what_is_read(name: str) -> None:
    pytest.importorskip(name)
    connection: Any = Connection("postgresql", ("0/20", "10.0.0.1 5432 1", 7), name)
    connection.pgpool = None  # it answers
    with pytest.raises(CannotKnow, match="Pgpool-II chooses a server"):
        positions.ask(connection, "where are you?")
    assert connection.asked[1:] == ["SHOW pool_version"]
    connection.pgpool = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        positions.ask(connection, "where are you?")
    assert connection.invalidated == 1


@pytest.mark.parametrize(("system", "why"), [("mysql", "a donor"), ("mariadb", "a donor"), ("postgresql", "")])
def test_only_a_node_of_galera_is_asked_whether_it_is_ready(
    monkeypatch: pytest.MonkeyPatch, system: str, why: str
) -> None:
    monkeypatch.setattr(positions.mysql_role, "unfit", lambda proxied: "a donor")
    connection: Any = Connection(system, None)
    assert positions.unfit(connection) == why


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ({"name": "postgresql"}, _POSTGRESQL),
        ({"name": "mysql", "is_mariadb": True}, _MARIADB),
        ({"name": "mysql", "is_mariadb": False}, _MYSQL),
        ({"name": "mysql"}, _MYSQL),
    ],
)
def test_each_system_has_positions_of_its_own(dialect: dict[str, Any], expected: Positions) -> None:
    engine: Any = SimpleNamespace(dialect=SimpleNamespace(**dialect))
    assert positions.positions_of(engine) is expected


@pytest.mark.parametrize(("ahead", "position"), [(9.9, ""), (10.5, "0/20")])
def test_a_commit_of_another_process_is_later_if_it_is_by_more_than_clocks_differ(ahead: float, position: str) -> None:
    """Within ten seconds either may be, and so the primary is asked for its position again."""
    with scope({"shop": Mark(100.0, "0/10")}), scope({"shop": Mark(100.0 + ahead, "0/20")}):
        assert marks()["shop"] == Mark(100.0 + ahead, position)
