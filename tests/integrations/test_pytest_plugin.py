"""The pytest plugin in projects of its users: every suite runs in a process of its own."""

import re
import sys
from pathlib import Path

import pytest

from tests.integrations.conftest import SYSTEMS, Project

pytest.importorskip("pytest_asyncio")
pytest.importorskip("xdist")

MODELS = """
from sqlmodel import Field, SQLModel

class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50, unique=True)

class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    team_id: int | None = Field(default=None, foreign_key="team.id")
"""
SUITE = """
import threading
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlmodel import select
from dbconfig import db
from models import Hero, Team

pytestmark = pytest.mark.parametrize("round", range(2))  # every test twice: the second sees what the first left

def names(session):
    return sorted(session.exec(select(Team.name)).all())

def test_a_commit_is_a_savepoint_that_the_application_sees(db_session, round):
    assert names(db_session) == []
    db_session.add(Team(name="a"))
    db_session.commit()
    with db.session() as session:
        assert names(session) == ["a"]
        session.add(Team(name="b"))
        session.commit()
    assert names(db_session) == ["a", "b"]
    db_session.add(Team(name="c"))
    db_session.rollback()
    assert names(db_session) == ["a", "b"]

def test_nested_transactions(db_session, round):
    with db.transaction() as session:
        session.add(Team(name="a"))
        with session.begin_nested():
            session.add(Team(name="b"))
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            session.add(Team(name="c"))
            session.flush()
            1 / 0
    assert names(db_session) == ["a", "b"]

def test_a_failing_flush_ends_its_own_transaction_only(db_session, round):
    db_session.add(Team(name="a"))
    db_session.commit()
    with pytest.raises(IntegrityError):
        with db.transaction() as session:
            session.add(Team(name="a"))
    assert names(db_session) == ["a"]
    db_session.add(Team(name="a"))
    with pytest.raises(IntegrityError):
        db_session.flush()
    db_session.rollback()
    assert names(db_session) == ["a"]

def test_several_sessions_one_after_the_other_and_within_each_other(db_override, round):
    for name in "abc":
        with db.transaction() as session:
            session.add(Team(name=name))
    with db.session() as outer:
        assert names(outer) == ["a", "b", "c"]
        with db.transaction() as inner:
            inner.add(Team(name="d"))
        assert names(outer) == ["a", "b", "c", "d"]

def test_a_session_that_only_read_takes_nothing_back_when_it_closes(db_session, round):
    with db.session() as reader:
        assert names(reader) == []
        with db.transaction() as writer:
            writer.add(Team(name="a"))
    assert names(db_session) == ["a"]
    with db.transaction() as writer:
        writer.add(Team(name="b"))
    db_session.rollback()
    assert names(db_session) == ["a", "b"]

def test_a_session_that_wrote_and_is_rolled_back_says_what_it_takes_along(db_session, round):
    db_session.add(Team(name="a"))
    db_session.flush()
    with db.transaction() as writer:
        writer.add(Team(name="b"))
    with pytest.warns(UserWarning, match="db_session_committed"):
        db_session.rollback()
    assert names(db_session) == []

def test_a_unit_of_work(db_session, round):
    db.run_in_transaction(lambda session: session.add(Team(name="a")))
    assert names(db_session) == ["a"]

def test_ddl(db_session, round):
    db_session.add(Team(name="before"))
    db_session.commit()
    with db.transaction() as session:
        session.connection().execute(text("CREATE TABLE extra (id INTEGER)"))
        session.connection().execute(text("INSERT INTO extra VALUES (1)"))
    assert db_session.connection().execute(text("SELECT count(*) FROM extra")).scalar() == 1
    assert names(db_session) == ["before"]

def test_threads(db_session, round):
    assert names(db_session) == []
    failures = []
    def work(number):
        try:
            for turn in range(5):
                with db.transaction() as session:
                    names(session)
                    session.add(Team(name=f"{number}/{turn}"))
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
    assert failures == []
    assert len(names(db_session)) == 20

def test_threads_with_real_commits(db_session_committed, round):
    def work(number):
        with db.transaction() as session:
            session.add(Team(name=str(number)))
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
    assert names(db_session_committed) == ["0", "1", "2", "3"]
    team = db_session_committed.exec(select(Team)).first()
    db_session_committed.add(Hero(name="h", team_id=team.id))
    db_session_committed.commit()

@pytest.mark.db
def test_the_mark_alone_is_enough(round):
    with db.transaction() as session:
        assert names(session) == []
        session.add(Team(name="a"))

@pytest.mark.db(commit=True)
def test_the_mark_with_commit(round):
    with db.transaction() as session:
        assert names(session) == []
        session.add(Team(name="a"))

def test_a_reading_session_sees_what_the_test_wrote_and_writes_nothing(db_session, round):
    db_session.add(Team(name="a"))
    db_session.commit()
    for how in ({"read_only": True}, {"snapshot": True}):
        with db.session(**how) as session:
            assert names(session) == ["a"]
            session.add(Team(name="b"))
            with pytest.raises(InvalidRequestError, match="Team is added"):
                session.commit()
    assert names(db_session) == ["a"]

def test_dispose_in_the_application_does_not_end_the_tests_database(db_session, round):
    db_session.add(Team(name="a"))
    db_session.commit()
    db.dispose()
    with db.session() as session:
        assert names(session) == ["a"]

def test_statements_are_counted(db_session, db_count_queries, round):
    with db_count_queries(1):
        names(db_session)
    with pytest.raises(AssertionError, match="2 statements ran, not 1:\\n  1. SELECT team.name"):
        with db_count_queries(1):
            names(db_session)
            names(db_session)
"""
ASYNC_SUITE = """
import asyncio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlmodel import select
from dbconfig import db
from models import Hero, Team

pytestmark = [pytest.mark.MARK, pytest.mark.parametrize("round", range(2))]

async def names(session):
    return sorted((await session.exec(select(Team.name))).all())

async def test_a_commit_is_a_savepoint_that_the_application_sees(async_db_session, round):
    assert await names(async_db_session) == []
    async_db_session.add(Team(name="a"))
    await async_db_session.commit()
    async with db.async_session() as session:
        assert await names(session) == ["a"]
        session.add(Team(name="b"))
        await session.commit()
    assert await names(async_db_session) == ["a", "b"]

async def test_nested_transactions(async_db_session, round):
    async with db.async_transaction() as session:
        session.add(Team(name="a"))
        async with session.begin_nested():
            session.add(Team(name="b"))
        nested = await session.begin_nested()
        session.add(Team(name="c"))
        await session.flush()
        await nested.rollback()
    assert await names(async_db_session) == ["a", "b"]

async def test_a_failing_flush_ends_its_own_transaction_only(async_db_session, round):
    async_db_session.add(Team(name="a"))
    await async_db_session.commit()
    with pytest.raises(IntegrityError):
        async with db.async_transaction() as session:
            session.add(Team(name="a"))
    assert await names(async_db_session) == ["a"]

async def test_several_tasks(async_db_session, round):
    assert await names(async_db_session) == []
    async def work(number):
        async with db.async_transaction() as session:
            await names(session)
            await asyncio.sleep(0)
            session.add(Team(name=str(number)))
    await asyncio.gather(*(work(number) for number in range(8)))
    assert len(await names(async_db_session)) == 8

async def test_a_reading_session_sees_what_the_test_wrote_and_writes_nothing(async_db_session, round):
    async_db_session.add(Team(name="a"))
    await async_db_session.commit()
    for how in ({"read_only": True}, {"snapshot": True}):
        async with db.async_session(**how) as session:
            assert await names(session) == ["a"]
            session.add(Team(name="b"))
            with pytest.raises(InvalidRequestError, match="Team is added"):
                await session.commit()
    assert await names(async_db_session) == ["a"]

async def test_a_unit_of_work(async_db_session, round):
    async def work(session):
        session.add(Team(name="a"))
    await db.async_run_in_transaction(work)
    assert await names(async_db_session) == ["a"]

async def test_ddl(async_db_session, round):
    async_db_session.add(Team(name="before"))
    await async_db_session.commit()
    async with db.async_transaction() as session:
        await (await session.connection()).execute(text("CREATE TABLE extra (id INTEGER)"))
    assert await names(async_db_session) == ["before"]

async def test_real_commits(async_db_session_committed, round):
    async def work(number):
        async with db.async_transaction() as session:
            session.add(Team(name=str(number)))
    await asyncio.gather(*(work(number) for number in range(4)))
    assert len(await names(async_db_session_committed)) == 4
    with db.session() as session:
        assert len(session.exec(select(Team)).all()) == 4

@pytest.mark.db
async def test_an_override_alone(async_db_override, round):
    async with db.async_transaction() as session:
        assert await names(session) == []
        session.add(Team(name="a"))

async def test_the_engine_is_of_this_loop(async_db_engine, round):
    async with async_db_engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM team"))).scalar() == 0
"""
INI = """[pytest]
addopts = -ra --strict-markers
filterwarnings = error
db_profile = testing
db_check_leaks = true
"""


def furnish(project: Project, url: str, *, suite: str = SUITE, asynchronous: str = "", extra: str = "") -> None:
    project.write(config__testing_yaml=f"url: '{url}'\n{extra}", models_py=MODELS, pytest_ini=INI)
    if asynchronous:
        (project.path / "test_async.py").write_text(asynchronous)
    (project.path / "conftest.py").write_text("import models\n")
    (project.path / "test_suite.py").write_text(suite)


def passed(done, count: int) -> None:
    assert f"{count} passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_rollback_suites_sync_and_async(project, url_of, system, workers):
    furnish(project, url_of(system), asynchronous=ASYNC_SUITE.replace("MARK", "asyncio"))
    passed(project.pytest(*(["-n", str(workers)] if workers else []), asyncio=True), 30 + 20)
    if system == "sqlite-file":
        assert list(project.path.glob("data/*")) == [], "the files of the tests are removed"


@pytest.mark.parametrize("system", ["sqlite-file", "postgresql"])
def test_the_asynchronous_suite_under_anyio(project, url_of, system):
    furnish(project, url_of(system), suite=ASYNC_SUITE.replace("MARK", "anyio"))
    with (project.path / "conftest.py").open("a") as file:
        file.write("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n")
    passed(project.pytest(), 20)


def test_the_asynchronous_suite_by_psycopg(project, url_of):
    furnish(project, url_of("postgresql", "postgresql+psycopg"), suite=ASYNC_SUITE.replace("MARK", "asyncio"))
    passed(project.pytest(asyncio=True), 20)


def test_one_loop_for_the_whole_session(project, url_of):
    suite = ASYNC_SUITE.replace("pytest.mark.MARK", 'pytest.mark.asyncio(loop_scope="session")')
    furnish(project, url_of("postgresql"), suite=suite)
    passed(project.pytest(asyncio=True), 20)


BOUND_MODELS = """
from dbconfig import db
from sqlmodel import Field, MetaData, SQLModel

class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)

class Facts(SQLModel):
    metadata = MetaData()

class Visit(Facts, table=True):
    id: int | None = Field(default=None, primary_key=True)

db.bind(facts=Facts.metadata)
"""
BOUND_SUITE = """
import threading
import pytest
from dbconfig import db
from sqlmodel import Session, func, select
from models import Team, Visit

pytestmark = pytest.mark.parametrize("round", range(2))  # every test twice: the second sees what the first left

COUNTS = [select(func.count()).select_from(each) for each in (Team, Visit)]

def counts(session):
    return [session.exec(each).one() for each in COUNTS]

async def async_counts(session):
    return [(await session.exec(each)).one() for each in COUNTS]

def write(session):
    session.add_all([Team(name="a"), Visit()])

def work():
    with db.transaction() as session:
        write(session)

def test_one_session_over_both(db_session, round):
    write(db_session)
    db_session.commit()
    work()
    db.run_in_transaction(write)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for session in (db.session(), db.session(read_only=True)):
        with session:
            assert counts(session) == [4, 4]
    for session in (db.session("facts"), db.session("facts", read_only=True)):
        with session:
            assert session.exec(COUNTS[1]).one() == 4
    write(db_session)
    db_session.rollback()
    assert counts(db_session) == [4, 4]

def test_real_commits(db_session_committed, round):
    write(db_session_committed)
    db_session_committed.commit()
    with db.session() as session:
        assert counts(session) == [1, 1]

@pytest.mark.asyncio
async def test_the_same_in_a_loop(async_db_session, round):
    write(async_db_session)
    await async_db_session.commit()
    async with db.async_transaction() as session:
        write(session)
    for how in ({}, {"read_only": True}):
        async with db.async_session(**how) as session:
            assert await async_counts(session) == [2, 2]
    async with db.async_session("facts") as session:
        assert (await session.exec(COUNTS[1])).one() == 2
"""


@pytest.mark.parametrize("system", ["sqlite-file", "postgresql"])
def test_an_application_over_several_databases(project, url_of, system, tmp_path):
    facts = f"databases: {{facts: {{url: 'sqlite:///{tmp_path}/facts.db'}}}}\n"
    furnish(project, url_of(system), suite=BOUND_SUITE, extra=facts)
    (project.path / "models.py").write_text(BOUND_MODELS)
    passed(project.pytest(asyncio=True), 6)


# Whose data is safe.

CANARY = """
from models import Team
def test_commits(db_session_committed):
    db_session_committed.add(Team(name="a"))
    db_session_committed.commit()
"""


def test_a_protected_profile_is_refused_and_left_alone(project):
    furnish(project, "sqlite:///data/app.db", suite=CANARY, extra="protected: true\n")
    done = project.pytest()
    assert "tests are refused: profile 'testing' is protected" in done.stdout
    assert not (project.path / "data").exists()


def test_a_profile_that_is_not_meant_for_tests_is_refused_with_what_to_do(project):
    project.write(config__development_yaml="url: sqlite:///data/app.db\n", models_py=MODELS, test_suite_py=CANARY)
    done = project.pytest()
    assert "profile 'development' is not a test profile: its name does not contain 'test'" in done.stdout
    assert "db_profile = testing" in done.stdout
    passed(project.pytest("--db-profile", "development"), 1)


def test_another_profiles_protected_database_is_refused(project):
    furnish(project, "sqlite:///data/app.db", suite=CANARY)
    project.write(config__production_yaml="url: sqlite:///data/app.db\n")
    assert "points at the database of 'production', which is protected" in project.pytest().stdout


def test_an_exported_database_url_is_never_touched(project, postgresql):
    """The canary's rows are what they were, whether the profile takes the URL or not."""
    postgresql.sql("ALTER ROLE app CREATEDB")
    postgresql.sql("CREATE TABLE team (name text); INSERT INTO team VALUES ('canary'); GRANT ALL ON team TO app")
    project.environ["DATABASE_URL"] = postgresql.url()
    for url in ("sqlite://", "${DATABASE_URL}"):
        furnish(project, url, suite=CANARY)
        passed(project.pytest(), 1)
        assert postgresql.sql("SELECT name FROM team") == [("canary",)]
    project.write(config__production_yaml="url: ${DATABASE_URL}\n")
    assert "which is protected" in project.pytest().stdout


def test_who_may_not_create_databases_is_told_what_to_do(project, postgresql):
    postgresql.sql("ALTER ROLE app NOCREATEDB")
    furnish(project, postgresql.url(), suite=CANARY)
    done = project.pytest()
    assert "permission denied to create database" in done.stdout
    assert "db_in_place = true" in done.stdout
    passed(project.pytest("-o", "db_in_place=true"), 1)


@pytest.mark.parametrize("system", ["sqlite-file", "postgresql", "mariadb"])
def test_reuse_keeps_the_database_and_create_makes_it_anew(project, url_of, system):
    suite = """
from sqlalchemy import text
def test_marker(db_engine):
    with db_engine.begin() as connection:
        before = connection.execute(text("SELECT count(*) FROM team")).scalar()
        connection.execute(text(f"INSERT INTO team (name) VALUES ('t{before}')"))
    print("BEFORE", before)
"""
    furnish(project, url_of(system), suite=suite)
    runs = [project.pytest("-s", *options).stdout for options in ([], ["--db-reuse"], ["--db-reuse"], ["--db-create"])]
    counts = [int(out.partition("BEFORE ")[2].split()[0]) for out in runs]
    assert counts == [0, 0, 1, 0]


def test_workers_copy_a_template_and_leave_nothing_behind(project, url_of, postgresql):
    suite = """
import pytest, time
@pytest.mark.parametrize("n", range(8))
def test_it(db_session, n): time.sleep(0.5)  # none is done before the others begin
"""
    furnish(project, url_of("postgresql"), suite=suite)
    (project.path / "conftest.py").write_text("""
import pytest, models
@pytest.fixture(scope="session")
def db_setup():
    def setup(engine):
        with open("setups", "a") as file: file.write("x")
        models.SQLModel.metadata.create_all(engine)
    return setup
""")
    passed(project.pytest("-n", "4"), 8)
    assert (project.path / "setups").read_text() == "x"
    assert postgresql.sql("SELECT datname FROM pg_database WHERE datname LIKE 'test_test%'") == []


# Guards.


def test_an_unmarked_test_is_blocked(project):
    suite = """
import pytest
from dbconfig import db
def test_unmarked():
    with pytest.raises(RuntimeError, match="without declaring it"):
        with db.session() as session: session.connection()
@pytest.mark.db
def test_marked():
    with db.session() as session: session.connection()
def test_with_fixture(db_session): db_session.connection()
"""
    furnish(project, "sqlite://", suite=suite)
    passed(project.pytest("-o", "db_block_unmarked=true"), 3)


def test_a_leaked_connection_fails_its_test_and_names_the_line(project):
    suite = """
import pytest
from dbconfig import db
kept = []
def take():
    session = db.session()
    session.connection()  # line 7
    kept.append(session)
@pytest.mark.db(commit=True)
def test_leaks(): take()
def test_clean(db_session_committed): db_session_committed.connection()
"""
    furnish(project, "sqlite:///data/app.db", suite=suite)
    done = project.pytest()
    assert "the test left connections checked out, taken at" in done.stdout
    assert "test_suite.py:7 in take" in done.stdout
    assert "2 passed, 1 error" in done.stdout


@pytest.mark.parametrize("driver", ["sqlite", "postgresql"])
def test_a_leaked_asynchronous_connection_names_the_line_too(project, url_of, driver):
    suite = """
import pytest
from dbconfig import db
kept = []
async def take():
    session = db.async_session()
    await session.connection()  # line 7
    kept.append(session)
@pytest.mark.asyncio
async def test_leaks(async_db_session_committed): await take()
"""
    furnish(project, url_of("postgresql" if driver == "postgresql" else "sqlite-file"), suite=suite)
    done = project.pytest(asyncio=True)
    assert "test_suite.py:7 in take" in done.stdout, done.stdout


def test_nothing_is_imported_before_a_fixture_is_used(project):
    suite = """
import re
import sys
def test_it():
    assert [name for name in ("sqlalchemy", "sqlmodel", "yaml", "pydantic") if name in sys.modules] == []
"""
    project.write(test_suite_py=suite)
    passed(project.pytest("-p", "no:anyio", "-p", "no:hypothesispytest", fresh=True), 1)


def test_migrations_make_the_tables_and_their_rows_survive_the_cleaning(project, url_of):
    suite = """
import pytest
from sqlalchemy import text
@pytest.mark.parametrize("round", range(2))
@pytest.mark.db(commit=True)
def test_seed(round, db_engine):
    with db_engine.begin() as connection:
        assert connection.execute(text("SELECT name FROM team")).scalars().all() == ["seed"]
        connection.execute(text("DELETE FROM team"))
"""
    furnish(project, url_of("postgresql"), suite=suite)
    (project.path / "conftest.py").write_text("""
import pytest, models
from sqlalchemy import text
@pytest.fixture(scope="session")
def db_setup():
    def migrate(engine):
        models.SQLModel.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO team (name) VALUES ('seed')"))
    return migrate
""")
    passed(project.pytest(), 2)


def test_a_forgotten_plugin_for_coroutines_is_told(project):
    furnish(project, "sqlite://", suite="def test_it(async_db_session): ...\n")
    done = project.pytest()
    assert "pip install pytest-asyncio" in done.stdout + done.stderr


def test_the_public_fixtures_are_documented():
    from dbconfig.integrations import pytest_plugin

    names = [name for name in dir(pytest_plugin) if name.startswith(("db_", "async_db_"))]
    assert [name for name in names if not getattr(pytest_plugin, name).__doc__] == []
    assert Path(sys.modules[pytest_plugin.__name__].__file__ or "").exists()


# The profile, which the application may read when conftest.py imports it.


APPLICATION = {
    "config__development_yaml": "url: sqlite:///development.db\n",
    "config__testing_yaml": "url: sqlite:///testing.db\n",
    "application_py": "from dbconfig import db\nengine = db.engine()\n",
    "tests__conftest_py": "from application import engine\n",
    "tests__test_it_py": "from dbconfig import db\ndef test_it(db_session): assert db.profile.name == 'testing'\n",
}


@pytest.mark.parametrize("by", ["ini", "option", "xdist"])
def test_the_profile_is_chosen_before_conftest_imports_the_application(project, by):
    ini = "" if by == "option" else "db_profile = testing\n"
    project.write(**APPLICATION, pytest_ini=f"[pytest]\npythonpath = .\n{ini}")
    options = {"option": ["--db-profile", "testing"], "xdist": ["-n", "1"]}.get(by, [])
    # The order of imports is what this is about: the workers are interpreters that have imported nothing.
    passed(project.pytest("tests", *options, fresh=by == "xdist"), 1)


def test_the_shell_decides_before_pytests_configuration(project):
    project.write(**APPLICATION, pytest_ini="[pytest]\npythonpath = .\ndb_profile = testing\n")
    project.environ["ENVIRONMENT"] = "development"
    done = project.pytest("tests")
    assert "profile 'development' is not a test profile" in done.stdout


def test_a_comment_behind_the_profile_is_refused(project):
    project.write(**APPLICATION, pytest_ini="[pytest]\ndb_profile = testing  # of the tests\n")
    done = project.pytest("tests")
    assert done.returncode == 4
    assert "write it on its own line" in done.stderr


def test_the_documented_configuration_works_as_it_stands(project):
    text = (Path(__file__).parents[2] / "docs/testing.md").read_text()
    block = re.search(r"```ini\n(.*?)```", text, re.DOTALL)[1]
    project.write(
        config__testing_yaml="url: 'sqlite://'\n", pytest_ini=block, test_it_py="def test_it(db_session): pass"
    )
    passed(project.pytest(), 1)


def test_the_shards_that_a_mark_names_are_isolated(project: Project) -> None:
    project.environ.update(ENVIRONMENT="testing", PYTHONPATH=str(project.path))
    project.write(
        config__testing_yaml="databases:\n  orders:\n    drivername: sqlite\n"
        "    shards: {eu: {database: eu.db}, us: {database: us.db}}\n",
        models_py=MODELS,
        test_shards_py="""
import pytest
from sqlmodel import select
from dbconfig import db
from models import Team

pytestmark = pytest.mark.db("orders/eu", "orders/us")

@pytest.mark.parametrize("round", range(2))
def test_each_shard_is_empty_again(db_override, round):
    with db.transaction("orders", shard="eu") as session:
        assert session.exec(select(Team)).all() == []
        session.add(Team(name="a"))
    with db.on_shard("us"), db.session("orders") as session:
        assert session.exec(select(Team)).all() == []
    with db.session("orders", shard="eu") as session:
        assert len(session.exec(select(Team)).all()) == 1
""",
    )
    done = project.run("pytest", "-q", "test_shards.py")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
