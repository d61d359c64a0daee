"""Which session an engine hands out."""

from collections.abc import Iterator

import pytest
from sqlalchemy import event
from sqlmodel import Session, select

from dbconfig import Registry
from tests.registries import Account, registry


@pytest.fixture
def db() -> Iterator[Registry]:
    with registry("sqlite://") as opened:
        opened.create_tables(Account)
        yield opened


def begins(db: Registry) -> list[str]:
    """Collect how transactions begin."""
    found: list[str] = []
    event.listen(db.engine(), "before_cursor_execute", lambda *arguments: found.append(arguments[2]))
    return found


def test_settings_of_the_session_are_given_to_every_session(db: Registry) -> None:
    with db.session() as session, db.transaction() as transaction:
        assert (session.expire_on_commit, session.autoflush) == (True, True)
        assert (transaction.expire_on_commit, transaction.autoflush) == (True, True)
    other = registry("sqlite://", expire_on_commit=False, autoflush=False)
    with other, other.session() as session, other.transaction() as transaction:
        assert (session.expire_on_commit, session.autoflush) == (False, False)
        assert (transaction.expire_on_commit, transaction.autoflush) == (False, False)


def test_what_was_read_can_be_read_after_the_commit_where_the_profile_says_so() -> None:
    with registry("sqlite://", expire_on_commit=False) as db:
        db.create_tables(Account)
        with db.transaction() as session:
            account = Account(id=1, balance=5)
            session.add(account)
        assert account.balance == 5


def test_a_transaction_takes_the_write_lock_and_a_session_does_not(db: Registry) -> None:
    statements = begins(db)
    with db.session() as session:
        session.exec(select(Account)).all()
    assert "BEGIN IMMEDIATE" not in statements
    with db.transaction() as session:
        session.exec(select(Account)).all()
    assert statements.count("BEGIN IMMEDIATE") == 1


def test_a_transaction_takes_the_lock_once_however_many_savepoints_there_are(db: Registry) -> None:
    statements = begins(db)
    with db.transaction() as session:
        session.add(Account(id=1, balance=1))
        with session.begin_nested(), session.begin_nested():
            session.add(Account(id=2, balance=2))
    assert statements.count("BEGIN IMMEDIATE") == 1
    with db.session() as session:
        assert len(session.exec(select(Account)).all()) == 2


def test_a_transaction_may_be_rolled_back_early_and_goes_on_with_the_lock(db: Registry) -> None:
    statements = begins(db)
    with db.session() as session:
        session.exec(select(Account)).all()
    with db.parts.engines.factory("default").writing() as session:
        session.add(Account(id=1, balance=1))
        session.rollback()
        session.add(Account(id=2, balance=2))
        session.commit()
        assert session.exec(select(Account.id)).all() == [2]
    assert statements.count("BEGIN IMMEDIATE") == 2


def test_a_transaction_without_a_statement_takes_no_connection(db: Registry) -> None:
    with db.transaction():
        assert db.engine().pool.checkedout() == 0


def test_a_transaction_is_a_session_of_sqlmodel(db: Registry) -> None:
    with db.transaction() as session:
        assert isinstance(session, Session)
        assert session.exec(select(Account)).all() == []
