"""Tokens and positions: what a server must have to be read from."""

import contextvars
import time
from base64 import urlsafe_b64encode

import pytest
from sqlalchemy import create_engine

from dbconfig.replicas.positions import _MARIADB, _MYSQL, _POSTGRESQL, Positions, _without_header
from dbconfig.replicas.read_your_writes import Mark, from_token, marks, note, scope, to_token, watch_commits


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
