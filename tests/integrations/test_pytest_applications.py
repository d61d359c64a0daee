"""The pytest plugin with whole applications: asynchronous ones in their own loop, fixtures that seed, engines kept."""

import pytest

from tests.integrations.conftest import SYSTEMS
from tests.integrations.test_pytest_plugin import furnish, passed

pytest.importorskip("pytest_asyncio")

# What runs in a loop of its own is on the connection of `db_session`, as the synchronous part of an application is.
JOINED = """
import asyncio
import threading
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlmodel import select
from dbconfig import db
from models import Team

pytestmark = pytest.mark.parametrize("round", range(2))

def names(session):
    return sorted(session.exec(select(Team.name)).all())

async def add(name):
    async with db.async_transaction() as session:
        session.add(Team(name=name))

def in_a_loop(*coroutines):
    async def run():
        return await asyncio.gather(*coroutines)
    found = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(run())))
    thread.start()
    thread.join()
    return found

def test_both_see_what_the_other_committed(db_session, round):
    db_session.add(Team(name="a"))
    db_session.commit()
    async def work():
        async with db.async_session() as session:
            found = sorted((await session.exec(select(Team.name))).all())
            session.add(Team(name="b"))
            await session.commit()
            return found
    assert in_a_loop(work()) == [["a"]]
    assert names(db_session) == ["a", "b"]

def test_tasks_of_one_loop_take_turns(db_session, round):
    async def work(number):
        async with db.async_transaction() as session:
            (await session.exec(select(Team.name))).all()
            await asyncio.sleep(0)
            session.add(Team(name=str(number)))
            await session.flush()
            await asyncio.sleep(0)
    in_a_loop(*(work(number) for number in range(8)))
    assert len(names(db_session)) == 8

def test_a_failing_flush_and_a_savepoint(db_session, round):
    async def work():
        await add("a")
        with pytest.raises(IntegrityError):
            await add("a")
        async with db.async_transaction() as session:
            session.add(Team(name="b"))
            async with session.begin_nested():
                session.add(Team(name="c"))
            nested = await session.begin_nested()
            session.add(Team(name="d"))
            await session.flush()
            await nested.rollback()
    in_a_loop(work())
    assert names(db_session) == ["a", "b", "c"]

def test_units_of_work_readers_and_streams(db_override, round):
    async def unit(session):
        session.add(Team(name="a"))
    async def work():
        await db.async_run_in_transaction(unit)
        for how in ({"read_only": True}, {"snapshot": True}):
            async with db.async_session(**how) as session:
                assert (await session.exec(select(Team.name))).all() == ["a"]
                session.add(Team(name="b"))
                with pytest.raises(InvalidRequestError, match="Team is added"):
                    await session.commit()
        async with db.async_session() as session:
            assert [row async for row in await session.stream_scalars(select(Team.name))] == ["a"]
            team = (await session.exec(select(Team))).one()
            await session.commit()
            assert team.name == "a"  # not expired, as in an asynchronous session of its own
    in_a_loop(work())
    with db.session() as session:
        assert names(session) == ["a"]

def test_a_loop_that_was_there_before(db_override, round):
    in_a_loop(add("a"))
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(add("b"))
        loop.run_until_complete(db.async_dispose())
        loop.run_until_complete(add("c"))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    with db.session() as session:
        assert names(session) == ["a", "b", "c"]

def test_tables_are_there(db_override, round):
    async def work():
        return db.create_tables()
    assert in_a_loop(work()) == [[]]
"""

WITH_FASTAPI = """
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select
from dbconfig import db
from dbconfig.integrations.fastapi import AsyncSessionDep, AsyncTransactionDep, TransactionDep, install, lifespan
from models import Team

app = FastAPI(lifespan=lifespan)
install(app)

@app.post("/sync")
def add(session: TransactionDep, name: str) -> int:
    session.add(Team(name=name))
    return 1

@app.post("/async")
async def async_add(session: AsyncTransactionDep, name: str) -> int:
    session.add(Team(name=name))
    return 1

@app.get("/async")
async def async_names(session: AsyncSessionDep) -> list[str]:
    return sorted((await session.exec(select(Team.name))).all())

@pytest.mark.parametrize("round", range(2))
def test_a_client_writes_and_reads_within_the_test(db_session, round):
    with TestClient(app) as client:
        assert client.get("/async").json() == []
        assert client.post("/async", params={"name": "a"}).status_code == 200
        assert client.post("/sync", params={"name": "b"}).status_code == 200
        db_session.add(Team(name="c"))
        db_session.commit()
        assert client.get("/async").json() == ["a", "b", "c"]
    assert sorted(db_session.exec(select(Team.name)).all()) == ["a", "b", "c"]
"""

BESIDE = """
import pytest
from sqlalchemy import text
from sqlmodel import select
from dbconfig import db
from models import Team

pytestmark = pytest.mark.parametrize("round", range(2))
ADD = text("INSERT INTO team (name) VALUES ('beside')")

def count(session):
    return len(session.exec(select(Team)).all())

@pytest.mark.asyncio
async def test_a_synchronous_session_beside_an_asynchronous_test(async_db_override, round):
    with db.session() as session:
        assert count(session) == 0
        session.add(Team(name="beside"))
        session.commit()

def test_an_engine_beside_the_test(db_override, round):
    with db.session() as session:
        assert count(session) == 0
    with db.engine().begin() as connection:
        connection.execute(ADD)
"""

SEEDED = """
import pytest
from sqlmodel import select
from dbconfig import db
from models import Team

def names(session):
    return sorted(session.exec(select(Team.name)).all())

def test_without_a_database(): pass

@pytest.mark.parametrize("round", range(2))
def test_rolled_back(db_session, round):
    assert names(db_session) == ["seed"]
    db_session.add(Team(name="a"))
    db_session.commit()

@pytest.mark.parametrize("round", range(2))
def test_committed(db_session_committed, round):
    assert names(db_session_committed) == ["seed"]
    db_session_committed.add(Team(name="a"))
    db_session_committed.commit()
"""
SEEDS = {
    "application": """
@pytest.fixture(scope="session", autouse=True)
def seed():
    db.create_tables()
    with db.transaction() as session:
        session.add(models.Team(name="seed"))
""",
    "fixture": """
@pytest.fixture(scope="session", autouse=True)
def seed(db_engine):
    with Session(db_engine) as session:
        session.add(models.Team(name="seed"))
        session.commit()
""",
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_asynchronous_application_is_in_the_tests_transaction(project, url_of, system):
    furnish(project, url_of(system), suite=JOINED)
    passed(project.pytest(), 12)


@pytest.mark.parametrize("system", ["sqlite-file", "sqlite-memory", "postgresql"])
def test_an_asynchronous_endpoint_under_a_test_client(project, url_of, system):
    pytest.importorskip("fastapi")
    furnish(project, url_of(system), suite=WITH_FASTAPI)
    passed(project.pytest("-W", "default"), 2)


@pytest.mark.parametrize("system", ["postgresql", "mariadb"])
def test_what_is_committed_beside_the_tests_connection_is_removed(project, url_of, system):
    furnish(project, url_of(system), suite=BESIDE)
    passed(project.pytest(asyncio=True), 4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_what_a_fixture_of_the_session_puts_there_is_in_the_tests_database(project, url_of, system, seed):
    furnish(project, url_of(system), suite=SEEDED)
    with (project.path / "conftest.py").open("a") as file:
        file.write("import pytest\nfrom sqlmodel import Session\nfrom dbconfig import db\n" + SEEDS[seed])
    passed(project.pytest(), 5)
    if system == "sqlite-file":
        assert list(project.path.glob("data/*")) == [], "nothing was written into the profile's own database"


def test_a_suite_without_databases_is_not_held_up_by_them(project):
    """No profile, no server: only the test that uses a database has an error."""
    project.write(test_suite_py="def test_one(): pass\ndef test_two(db_session): pass\n")
    done = project.pytest()
    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "no `config` folder" in done.stdout


def test_a_folder_with_a_registry_of_its_own_keeps_it(project):
    own = """
import pytest
from dbconfig import Profile, Registry
@pytest.fixture(scope="session")
def db_registry(): return Registry.from_profile(Profile(name="testing", url="sqlite://"))
"""
    project.write(
        conftest_py="import pytest\n@pytest.fixture(scope='session', autouse=True)\ndef first(): pass\n",
        unit__test_unit_py="def test_one(): pass\n",
        web__conftest_py=own,
        web__test_web_py="def test_two(db_session, db_registry): assert db_registry.profile.name == 'testing'\n",
    )
    passed(project.pytest(), 2)


KEPT = """
import pytest
from sqlmodel import Session, select
from application import engine
from dbconfig import db
from models import Team

def count():
    with Session(engine) as session:
        return len(session.exec(select(Team)).all())

@pytest.mark.parametrize("round", range(2))
@pytest.mark.db(commit=True)
def test_committed(round):
    assert count() == 0
    with Session(engine) as session:
        session.add(Team(name="a"))
        session.commit()
    with db.session() as session:
        assert len(session.exec(select(Team)).all()) == 1

@pytest.mark.parametrize("round", range(2))
def test_beside_a_transaction(db_override, round):
    assert count() == 0
    with Session(engine) as session:
        session.add(Team(name="a"))
        session.commit()
    assert count() == 1
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_engine_that_an_application_keeps_from_its_import_leads_to_the_tests_database(project, url_of, system):
    furnish(project, url_of(system), suite=KEPT)
    project.write(application_py="from dbconfig import db\nengine = db.engine()\n")
    with (project.path / "conftest.py").open("a") as file:
        file.write("import application\n")
    passed(project.pytest(), 4)
    if system == "sqlite-file":
        assert list(project.path.glob("data/*")) == [], "nothing was written into the profile's own database"


# On SQLite, a test's connection keeps the write lock: other connections fail immediately, instead of waiting in vain.
IN_VAIN = """
import asyncio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from dbconfig import db
from models import Team

ADD = text("INSERT INTO team (name) VALUES ('beside')")

def add_with_a_session():
    with db.session() as session:
        session.add(Team(name="beside"))
        session.commit()

def add_with_an_engine():
    with db.engine().begin() as connection:
        connection.execute(ADD)

calls = []

def add_with_a_unit_of_work():
    def work(session):
        calls.append(1)
        session.execute(ADD)
    db.run_in_transaction(work)

@pytest.mark.asyncio
@pytest.mark.parametrize("add", [add_with_a_session, add_with_an_engine, add_with_a_unit_of_work])
async def test_a_synchronous_endpoint(async_db_session, add):
    async_db_session.add(Team(name="a"))
    await async_db_session.commit()
    with pytest.raises(OperationalError, match="use the fixture `db_session`.*or `async_db_session_committed`"):
        await asyncio.to_thread(add)
    assert len(calls) == (1 if add is add_with_a_unit_of_work else 0)

@pytest.mark.asyncio
async def test_an_engine_in_another_thread(db_session):
    db_session.add(Team(name="a"))
    db_session.commit()
    with pytest.raises(OperationalError, match="db.engine..: use db.session.., or the fixture `db_session_committed`"):
        await asyncio.to_thread(add_with_an_engine)

def test_after_it_an_engine_writes(db_session_committed):
    with db.engine().begin() as connection:
        connection.execute(ADD)
"""


@pytest.mark.parametrize("system", ["sqlite-file", "sqlite-memory"])
def test_a_connection_that_would_wait_for_the_end_of_the_test_is_refused(project, url_of, system):
    furnish(project, url_of(system), suite=IN_VAIN, extra="lock_timeout: 1h\n")
    passed(project.pytest(asyncio=True), 5)
