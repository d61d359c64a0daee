"""Which tables are created, and in which order."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, declarative_base, mapped_column
from sqlmodel import Column, Field, Integer, MetaData, SQLModel

from dbconfig import ConfigError, Registry
from dbconfig.engine import create_tables, declarative_bases
from tests.registries import Account, Hero, Team, registry
from tests.support.servers import Server


class Plain(SQLModel):
    name: str


class Registered(SQLModel, table=True):
    __tablename__ = "tables_registered"
    id: int = Field(primary_key=True)


@pytest.fixture
def db() -> Iterator[Registry]:
    with registry("sqlite://") as opened:
        yield opened


def test_all_tables_are_those_of_the_imported_models(db: Registry) -> None:
    created = db.create_tables()
    assert "tables_registered" in created
    assert set(created) == set(SQLModel.metadata.tables) == set(inspect(db.engine()).get_table_names())
    assert set(db.drop_tables()) == set(created)
    assert inspect(db.engine()).get_table_names() == []


def test_a_table_is_named_by_its_model_or_by_its_name(db: Registry) -> None:
    assert db.create_tables("tables_registered") == ["tables_registered"]
    assert db.create_tables(Registered) == []
    assert db.drop_tables(Registered, "tables_registered") == ["tables_registered"]


def test_models_of_several_metadata_are_created_together(db: Registry) -> None:
    assert db.create_tables(Hero, Registered, Team) == ["engine_team", "engine_hero", "tables_registered"]


def test_indexes_come_with_their_table(db: Registry) -> None:
    db.create_tables(Team)
    assert [index["name"] for index in inspect(db.engine()).get_indexes("engine_team")] == ["ix_engine_team_name"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Plain, ["Plain is not a table", "class Plain(SQLModel, table=True)"]),
        ("tables_registerd", ["no model has a table 'tables_registerd'", "did you mean 'tables_registered'?"]),
        ("nothing_like_it", ["import the module of its model first", "tables_registered"]),
    ],
)
def test_what_is_no_table_is_told(db: Registry, model: type[SQLModel] | str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        db.create_tables(Team, model)
    assert [word for word in words if word not in str(caught.value)] == []
    assert inspect(db.engine()).get_table_names() == []


def test_tables_that_refer_to_each_other_are_created_without_a_warning(db: Registry) -> None:
    class Base(SQLModel):
        metadata = MetaData()

    def key(table: str) -> Column[int]:
        return Column(Integer, ForeignKey(f"{table}.id", name=f"fk_{table}", use_alter=True))

    class Egg(Base, table=True):
        id: int = Field(primary_key=True)
        hen: int | None = Field(default=None, sa_column=key("hen"))

    class Hen(Base, table=True):
        id: int = Field(primary_key=True)
        egg: int | None = Field(default=None, sa_column=key("egg"))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(db.create_tables(Egg, Hen)) == ["egg", "hen"]


def test_an_error_half_way_leaves_no_table_behind(db: Registry) -> None:
    with db.session() as session:
        session.execute(text("CREATE TABLE other (name TEXT)"))
        session.execute(text("CREATE INDEX ix_engine_team_name ON other (name)"))
        session.commit()
    with pytest.raises(OperationalError, match="already exists"):
        db.create_tables(Account, Team)
    assert inspect(db.engine()).get_table_names() == ["other"]


def test_who_waits_too_long_for_another_process_is_told(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr(create_tables, "_LOCK_TIMEOUT", 0.2)
    url = server.url()
    with registry(url) as one, registry(url) as other:
        late = pytest.raises(TimeoutError, match="another process has been creating tables")
        with create_tables._locked(one.engine()), late:
            other.create_tables(Account)
        assert other.create_tables(Account) == ["engine_account"]


def test_a_connection_that_is_lost_meanwhile_is_told_as_itself(server: Server) -> None:
    with registry(server.url()) as db:
        lost = pytest.raises(DBAPIError, match=r"terminating connection|server closed|Lost connection|gone away|killed")
        with lost, create_tables._locked(db.engine()) as connection:
            server.terminate()
            connection.execute(text("SELECT 1"))
        assert db.create_tables(Account) == ["engine_account"]


def test_where_no_model_is_imported_it_says_so(
    db: Registry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarative_bases, "with_tables", list)
    with caplog.at_level("WARNING", "dbconfig.tables"):
        assert create_tables.selected((), (MetaData(),)) == []
    assert caplog.messages == [
        "no tables are defined: import the modules of your models before creating or dropping tables"
    ]
    caplog.clear()
    assert db.create_tables(Registered) == ["tables_registered"]
    assert caplog.messages == []


class _Plain(DeclarativeBase):
    metadata = MetaData()


class _Order(_Plain):
    __tablename__ = "plain_order"
    id: Mapped[int] = mapped_column(primary_key=True)


_Classic: Any = declarative_base(metadata=MetaData())


class _Item(_Classic):
    __tablename__ = "classic_item"
    id = mapped_column(Integer, primary_key=True)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((_Plain,), ["plain_order"]),
        ((_Plain.metadata,), ["plain_order"]),
        ((_Classic,), ["classic_item"]),
        ((_Item,), ["classic_item"]),
        ((_Order.__table__,), ["plain_order"]),
        ((_Plain, _Classic.metadata), ["plain_order", "classic_item"]),
    ],
)
def test_plain_sqlalchemy_names_a_base_metadata_a_model_or_a_table(named: tuple[Any, ...], expected: list[str]) -> None:
    with registry("sqlite://") as db:
        assert db.create_tables(*named) == expected
        assert db.create_tables(*named) == []
        assert sorted(db.drop_tables(*named)) == sorted(expected)


def test_where_no_model_is_sqlmodels_the_error_names_the_bases_that_have_tables() -> None:
    with pytest.raises(ConfigError) as raised:
        create_tables.selected((), (MetaData(),))
    (problem,) = raised.value.problems
    assert problem.slug == "unknown-table"
    assert "pass the base: db.create_tables(" in problem.help
    (note,) = problem.notes
    assert f"{__name__}._Plain (plain_order)" in note
    assert ".Base (classic_item)" in note


@pytest.mark.parametrize("wrong", [int, object()])
def test_what_has_no_table_is_refused_by_its_name(wrong: Any) -> None:
    with registry("sqlite://") as db, pytest.raises(ConfigError, match="has no table"):
        db.create_tables(wrong)
