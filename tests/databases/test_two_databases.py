"""One session over several databases: each model where it belongs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Field, MetaData, Relationship, Session, SQLModel, delete, func, select, update

from dbconfig import ConfigError, Profile, Registry


class Base(SQLModel):
    metadata = MetaData()


class FactsBase(SQLModel):
    metadata = MetaData()


class TwoTeam(Base, table=True):
    __tablename__ = "two_team"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    heroes: list["TwoHero"] = Relationship(back_populates="team")


class TwoHero(Base, table=True):
    __tablename__ = "two_hero"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    team_id: int | None = Field(default=None, foreign_key="two_team.id")
    team: TwoTeam | None = Relationship(back_populates="heroes")


class Visit(FactsBase, table=True):
    __tablename__ = "two_visit"
    id: int | None = Field(default=None, primary_key=True)
    page: str


class Archive(Base, table=True):
    __tablename__ = "two_archive"
    id: int | None = Field(default=None, primary_key=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql and mariadb", marks=pytest.mark.server)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    urls = [f"sqlite:///{tmp_path}/main.db", f"sqlite:///{tmp_path}/facts.db"]
    if request.param != "sqlite":
        urls = [request.getfixturevalue(name).url() for name in ("postgresql", "mariadb")]
    databases = {"facts": {"url": urls[1]}, "old": {"url": f"sqlite:///{tmp_path}/old.db"}}
    with Registry.from_profile(Profile(name="two", url=urls[0], databases=databases)) as opened:
        opened.bind(facts=FactsBase.metadata, old=Archive, default=Base)
        yield opened


def tables_of(db: Registry, database: str) -> list[str]:
    return sorted(inspect(db.engine(database)).get_table_names())


def furnish(db: Registry) -> None:
    db.create_tables()
    with db.transaction() as session:
        session.add(TwoHero(name="Ada", team=TwoTeam(name="Analysts")))
        session.add(Visit(page="/"))


def test_each_table_is_created_and_dropped_in_its_own_database(db: Registry) -> None:
    created = db.create_tables()
    assert {"two_team", "two_hero", "two_archive", "two_visit"} <= set(created)
    assert set(tables_of(db, "default")) >= {"two_hero", "two_team"}
    assert "two_visit" not in tables_of(db, "default")
    assert tables_of(db, "facts") == ["two_visit"]
    assert tables_of(db, "old") == ["two_archive"]
    assert db.create_tables() == []
    assert db.drop_tables(Visit) == ["two_visit"]
    assert tables_of(db, "facts") == []
    assert db.create_tables("two_visit") == ["two_visit"]
    assert tables_of(db, "facts") == ["two_visit"]
    assert db.drop_tables(database="facts") == ["two_visit"]


def test_one_session_writes_and_reads_both(db: Registry) -> None:
    furnish(db)
    with db.session() as session:
        assert [hero.team.name for hero in session.exec(select(TwoHero).join(TwoTeam)) if hero.team] == ["Analysts"]
        assert session.get_one(Visit, 1).page == "/"
        assert session.exec(select(func.count()).select_from(Visit)).one() == 1
        session.execute(update(Visit).values(page="/new"))
        session.add(TwoHero(name="Grace"))
        session.commit()
        assert session.exec(select(Visit.page)).all() == ["/new"]
        session.execute(delete(Visit))
        session.rollback()
        assert session.get(Visit, 1)
    assert db.run_in_transaction(lambda session: len(session.exec(select(Visit)).all())) == 1


def test_reading_sessions_know_the_databases_too(db: Registry) -> None:
    furnish(db)
    for how in ({"read_only": True}, {"snapshot": True}):
        with db.session(**how) as session:
            assert session.get_one(Visit, 1).page == "/"
            assert len(session.exec(select(TwoHero)).all()) == 1
            session.add(Visit(page="/x"))
            with pytest.raises(InvalidRequestError, match="Visit is added"):
                session.flush()


def test_an_exception_rolls_back_both(db: Registry) -> None:
    furnish(db)

    def fail(session: Session) -> None:
        session.add(TwoHero(name="Eve"))
        session.add(Visit(page="/eve"))
        session.flush()
        raise KeyError

    with pytest.raises(KeyError):
        db.run_in_transaction(fail)
    with db.session() as session:
        assert len(session.exec(select(TwoHero)).all()) == len(session.exec(select(Visit)).all()) == 1


def test_a_statement_over_two_databases_is_refused_and_says_which(db: Registry) -> None:
    furnish(db)
    with db.session() as session:
        with pytest.raises(InvalidRequestError, match="two_visit in facts"):
            session.exec(select(TwoHero, Visit)).all()
        session.execute(text("SELECT 1"))  # text goes to the profile's own


def test_a_session_of_a_named_database_is_that_one_alone(db: Registry) -> None:
    furnish(db)
    with db.session("facts") as session:
        assert type(session) is Session
        assert session.get_one(Visit, 1).page == "/"


def test_binding_after_the_first_session_acts_as_well(tmp_path: Path) -> None:
    databases = {"facts": {"url": f"sqlite:///{tmp_path}/facts.db"}}
    with Registry.from_profile(Profile(name="two", url="sqlite://", databases=databases)) as db:
        engine = db.engine()
        with db.session(), db.session(read_only=True):
            pass
        db.bind(facts=FactsBase)
        assert db.engine() is engine
        db.create_tables(Visit)
        with db.transaction() as session:
            session.add(Visit(page="/"))
        with db.session("facts", read_only=True) as session:
            assert session.get(Visit, 1)


def test_a_wrong_name_says_which_there_are(db: Registry) -> None:
    with pytest.raises(ConfigError, match=r"databases: default, facts, old[\s\S]*did you mean 'facts'"):
        db.session("fact")
    with pytest.raises(ConfigError, match="databases: default, facts, old"):
        db.session("fact", read_only=True)
    with pytest.raises(ConfigError, match="did you mean 'facts'"):
        db.bind(fatcs=MetaData())
    assert db.create_tables(Visit) == ["two_visit"]
    with pytest.raises(InvalidRequestError, match="'facts' already"):
        db.bind(old=Visit.metadata)
    with pytest.raises(TypeError, match="metadata and models"):
        db.bind(old="two_visit")  # type: ignore[arg-type]


def test_a_base_that_shares_its_metadata_cannot_be_bound() -> None:
    class Shared(SQLModel):
        pass

    db = Registry.from_profile(Profile(name="two", url="sqlite://"))
    with pytest.raises(InvalidRequestError, match="give it one of its own"):
        db.bind(default=Shared)


def test_a_name_that_is_bound_before_the_profile_is_loaded_is_told_at_the_first_use(tmp_path: Path) -> None:
    (tmp_path / "development.yaml").write_text("url: sqlite://\ndatabases: {facts: {url: 'sqlite://'}}\n")
    with Registry(tmp_path, environ={}) as db:
        db.bind(fatcs=FactsBase.metadata)
        with db.session() as session, pytest.raises(ConfigError, match="did you mean 'facts'"):
            session.exec(select(Visit)).all()
