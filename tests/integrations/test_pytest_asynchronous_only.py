"""The pytest plugin where a profile names an asynchronous driver, and nothing synchronous can connect."""

import pytest

from dbconfig.engine import create
from tests.integrations.test_pytest_plugin import ASYNC_SUITE, BOUND_MODELS, BOUND_SUITE, furnish, passed

pytest.importorskip("pytest_asyncio")

DRIVERS = {
    "sqlite-file": "sqlite+aiosqlite",
    "sqlite-memory": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "mariadb": "mysql+asyncmy",
}
# The end of the suite asks by a synchronous session as well.
SUITE = ASYNC_SUITE.replace(
    """    with db.session() as session:
        assert len(session.exec(select(Team)).all()) == 4
""",
    "",
)
assert SUITE != ASYNC_SUITE
# An application of its own loop, as FastAPI's TestClient runs it, and rows from a fixture of the whole session.
SEEDED = """
import asyncio
import pytest
from sqlmodel import select
from dbconfig import db
from models import Team

async def names():
    async with db.async_session() as session:
        return sorted((await session.exec(select(Team.name))).all())

async def add(name):
    async with db.async_transaction() as session:
        session.add(Team(name=name))

@pytest.mark.db
@pytest.mark.asyncio
@pytest.mark.parametrize("round", range(2))
async def test_the_mark_alone_is_enough(round):
    assert await names() == ["seed"]
    await add("a")

@pytest.mark.db(commit=True)
@pytest.mark.parametrize("round", range(2))
def test_what_a_synchronous_test_commits_in_a_loop_of_its_own_is_removed(round):
    assert asyncio.run(names()) == ["seed"]
    asyncio.run(add("a"))
    assert asyncio.run(names()) == ["a", "seed"]
"""
SEED = """
import asyncio, pytest
from dbconfig import db

async def fill():
    async with db.async_transaction() as session:
        session.add(models.Team(name="seed"))

@pytest.fixture(scope="session", autouse=True)
def seed():
    db.create_tables()
    asyncio.run(fill())
"""
SYNCHRONOUS = """
import pytest
def test_session(db_session): ...
def test_override(db_override): ...
def test_engine(db_engine): ...
def test_committed(db_session_committed): ...
@pytest.mark.db
def test_mark(): ...
@pytest.mark.db("elsewhere")
@pytest.mark.asyncio
async def test_an_unknown_database(async_db_override): ...
"""


@pytest.fixture
def url(url_of, system):
    pytest.importorskip(DRIVERS[system].partition("+")[2])
    return url_of(system, DRIVERS[system]).replace("sqlite:", f"{DRIVERS['sqlite-file']}:")


@pytest.mark.parametrize("system", DRIVERS)
def test_the_asynchronous_suite(project, url, system):
    furnish(project, url, suite=SUITE.replace("MARK", "asyncio"))
    passed(project.pytest(asyncio=True), 20)
    if system == "sqlite-file":
        assert list(project.path.glob("data/*")) == [], "the files of the tests are removed"


@pytest.mark.parametrize("system", ["postgresql"])
def test_workers_copy_a_template(project, url, system, request):
    pytest.importorskip("xdist")
    furnish(project, url, suite=SUITE.replace("MARK", "anyio"))
    with (project.path / "conftest.py").open("a") as file:
        file.write("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n")
    passed(project.pytest("-n", "2"), 20)
    left = request.getfixturevalue(system).sql("SELECT datname FROM pg_database WHERE datname LIKE 'test_test%'")
    assert not left, left


@pytest.mark.parametrize("system", DRIVERS)
def test_seeds_marks_and_an_application_in_a_loop_of_its_own(project, url, system):
    furnish(project, url, suite=SEEDED)
    with (project.path / "conftest.py").open("a") as file:
        file.write(SEED)
    passed(project.pytest(asyncio=True), 4)


@pytest.mark.parametrize("system", ["sqlite-file", "postgresql"])
def test_an_application_over_several_databases(project, url, system, tmp_path):
    facts = f"databases: {{facts: {{url: 'sqlite+aiosqlite:///{tmp_path}/facts.db'}}}}\n"
    furnish(project, url, suite=BOUND_SUITE, extra=facts)
    (project.path / "models.py").write_text(BOUND_MODELS)
    passed(project.pytest("-k", "in_a_loop", asyncio=True), 2)


@pytest.mark.parametrize("system", ["sqlite-memory", "postgresql"])
def test_migrations_make_the_tables(project, url, system):
    suite = """
import pytest
from sqlmodel import text
@pytest.mark.asyncio
@pytest.mark.parametrize("round", range(2))
async def test_rows(async_db_session_committed, round):
    found = await async_db_session_committed.exec(text("SELECT name FROM team"))
    assert found.scalars().all() == ["seed"]
    await async_db_session_committed.exec(text("DELETE FROM team"))
    await async_db_session_committed.commit()
"""
    furnish(project, url, suite=suite)
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
    passed(project.pytest(asyncio=True), 2)


@pytest.mark.parametrize("system", ["sqlite-file"])
def test_a_synchronous_fixture_names_the_one_to_use(project, url, system):
    create.check_version()
    furnish(project, url, suite=SYNCHRONOUS)
    done = project.pytest(asyncio=True)
    assert "6 errors" in done.stdout, done.stdout
    for fixture in ("db_session", "db_override", "db_engine", "db_session_committed"):
        assert f"`{fixture}` needs a synchronous driver, and sqlite+aiosqlite is an asynchronous one" in done.stdout
        assert f"use `async_{fixture}` in a coroutine" in done.stdout
    assert "@pytest.mark.db(commit=True)" in done.stdout
    assert "no database 'elsewhere'" in done.stdout
