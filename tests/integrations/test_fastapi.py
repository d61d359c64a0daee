"""FastAPI: sessions as dependencies, in applications that run."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
from sqlalchemy import text
from sqlmodel import Field, MetaData, Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig import Profile, Registry
from dbconfig.sessions.session import ReadOnlySession

fastapi = pytest.importorskip("fastapi")

from fastapi import FastAPI, Header, HTTPException  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from dbconfig.integrations.fastapi import (  # noqa: E402
    HEALTH_LIFETIME,
    async_session,
    health,
    install,
    lifespan,
    on_shard,
    session,
)
from tests.support.processes import wait_until  # noqa: E402


class Base(SQLModel):
    metadata = MetaData()


class Parent(Base, table=True):
    __tablename__ = "fa_parent"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40)


DEFERRED = """
CREATE TABLE fa_child (parent_id INTEGER REFERENCES fa_parent(id) DEFERRABLE INITIALLY DEFERRED)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request, tmp_path):
    url = f"sqlite:///{tmp_path}/app.db" if request.param == "sqlite" else request.getfixturevalue("postgresql").url()
    with Registry.from_profile(Profile(name="tests", url=url, pool_size=3, max_overflow=1, pool_timeout=0.5)) as made:
        Base.metadata.create_all(made.engine())
        with made.engine().begin() as connection:
            connection.execute(text(DEFERRED))
        yield made


@pytest.fixture(params=["sync", "async"])
def asynchronous(request):
    return request.param == "async"


def application(registry, asynchronous, **options):
    app = FastAPI(lifespan=lifespan(registry=registry, asynchronous=asynchronous, **options))
    install(app, registry=registry, asynchronous=asynchronous)
    (_async_routes if asynchronous else _routes)(app, registry)
    return app


def _routes(app, registry):
    Plain = Annotated[Session, session(registry=registry)]
    Transaction = Annotated[Session, session(registry=registry, transaction=True)]
    ReadOnly = Annotated[Session, session(registry=registry, read_only=True)]

    @app.post("/parents")
    def add(name: str, session: Transaction) -> Parent:
        parent = Parent(name=name)
        session.add(parent)
        session.flush()
        return parent

    @app.post("/fails")
    def fails(session: Transaction):
        session.add(Parent(name="lost"))
        session.flush()
        raise HTTPException(418)

    @app.post("/commit-fails")
    def commit_fails(session: Transaction):
        session.connection().execute(text("INSERT INTO fa_child VALUES (4711)"))
        return {"status": "fine until the COMMIT"}

    @app.get("/parents")
    def names(session: Plain) -> list[str]:
        return list(session.exec(select(Parent.name)))

    @app.post("/read-only")
    def read_only(session: ReadOnly):
        session.add(Parent(name="lost"))
        session.commit()

    @app.get("/read-only")
    def of_a_reader(session: ReadOnly) -> tuple[list[str], bool]:
        return list(session.exec(select(Parent.name))), isinstance(session, ReadOnlySession)

    @app.get("/slow")
    def slow(session: Plain):
        session.connection()
        app.state.released.wait(60)


def _async_routes(app, registry):
    Plain = Annotated[AsyncSession, async_session(registry=registry)]
    Transaction = Annotated[AsyncSession, async_session(registry=registry, transaction=True)]
    ReadOnly = Annotated[AsyncSession, async_session(registry=registry, read_only=True)]

    @app.post("/parents")
    async def add(name: str, session: Transaction) -> Parent:
        parent = Parent(name=name)
        session.add(parent)
        await session.flush()
        return parent

    @app.post("/fails")
    async def fails(session: Transaction):
        session.add(Parent(name="lost"))
        await session.flush()
        raise HTTPException(418)

    @app.post("/commit-fails")
    async def commit_fails(session: Transaction):
        await (await session.connection()).execute(text("INSERT INTO fa_child VALUES (4711)"))
        return {"status": "fine until the COMMIT"}

    @app.get("/parents")
    async def names(session: Plain) -> list[str]:
        return list((await session.exec(select(Parent.name))).all())

    @app.post("/read-only")
    async def read_only(session: ReadOnly):
        session.add(Parent(name="lost"))
        await session.commit()

    @app.get("/read-only")
    async def of_a_reader(session: ReadOnly) -> tuple[list[str], bool]:
        return list((await session.exec(select(Parent.name))).all()), isinstance(session.sync_session, ReadOnlySession)

    @app.get("/slow")
    async def slow(session: Plain):
        await session.connection()
        await asyncio.to_thread(app.state.released.wait, 60)


@pytest.fixture
def client(registry, asynchronous):
    with TestClient(application(registry, asynchronous), raise_server_exceptions=False) as opened:
        yield opened


def test_a_transaction_commits_before_the_answer_and_its_objects_are_readable(client):
    answer = client.post("/parents", params={"name": "a"})
    assert (answer.status_code, answer.json()["name"]) == (200, "a")
    assert client.get("/parents").json() == ["a"]


def test_a_failing_endpoint_is_rolled_back(client):
    assert client.post("/fails").status_code == 418
    assert client.get("/parents").json() == []


def test_a_commit_that_fails_is_a_500(client):
    assert client.post("/commit-fails").status_code == 500
    assert client.get("/parents").json() == []


def test_a_read_only_session_does_not_write(client):
    assert client.post("/read-only").status_code == 500
    assert client.get("/parents").json() == []
    client.post("/parents", params={"name": "a"})
    assert client.get("/read-only").json() == [["a"], True]


@pytest.mark.parametrize("make", [session, async_session])
def test_a_session_that_is_to_write_and_only_to_read_is_refused(make):
    with pytest.raises(ValueError, match="cannot be combined"):
        make(transaction=True, read_only=True)


def in_threads(count, work):
    results = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return results


def test_an_exhausted_pool_is_a_503_with_retry_after_and_degraded_health(client, clock):
    released = client.app.state.released = threading.Event()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(client.get, "/slow") for _ in range(8)]
        wait_until(lambda: sum(each.done() for each in asked) == 4, "four refusals")
        state = client.get("/health/db")
        released.set()
    answers = [each.result() for each in asked]
    assert (state.status_code, state.json()["status"]) == (200, "degraded")
    assert sorted(each.status_code for each in answers) == [200] * 4 + [503] * 4
    busy = next(each for each in answers if each.status_code == 503)
    assert busy.headers["Retry-After"] == "1"
    clock.advance(HEALTH_LIFETIME)
    assert client.get("/health/db").json() == {"status": "ok", "databases": {"default": "ok"}}


def test_200_concurrent_requests_one_in_ten_failing(registry, asynchronous):
    # Nobody has to give up on a machine that is busy with other tests.
    patient = registry.profile.databases["default"].model_copy(update={"pool_timeout": 60.0})
    registry = Registry.from_profile(registry.profile.model_copy(update={"databases": {"default": patient}}))
    app = application(registry, asynchronous)
    numbers = iter(range(200))
    taken = threading.Lock()
    with TestClient(app, raise_server_exceptions=False) as client:

        def work():
            found = []
            while True:
                with taken:
                    number = next(numbers, None)
                if number is None:
                    return found
                answer = client.post("/fails") if number % 10 == 0 else client.post("/parents", params={"name": "n"})
                found.append(answer.status_code)

        codes = [code for found in in_threads(20, work) for code in found]
        assert codes.count(418) == 20
        assert codes.count(200) == 180
        assert len(client.get("/parents").json()) == codes.count(200)
        pool = registry.engine().pool
        assert pool.checkedout() == 0


def test_health_is_unavailable_where_the_server_is_down_and_says_nothing_else(postgresql, asynchronous, clock):
    registry = Registry.from_profile(Profile(name="tests", url=postgresql.url(), pool_timeout=1, connect_timeout=1))
    app = FastAPI()
    app.include_router(health(registry=registry, asynchronous=asynchronous))
    with TestClient(app) as client:
        assert client.get("/health/db").status_code == 200
        postgresql.stop()
        clock.advance(HEALTH_LIFETIME)
        answer = client.get("/health/db")
        assert answer.status_code == 503
        assert answer.json() == {"status": "unavailable", "databases": {"default": "unavailable"}}
        if asynchronous:
            client.portal.call(registry.async_dispose)
    registry.dispose()


def test_the_lifespan_stops_a_start_without_a_database_and_surrounds_the_applications_own(postgresql, asynchronous):
    url = postgresql.url()
    said = []

    @asynccontextmanager
    async def own(app):
        said.append("start")
        yield {"answer": 42}
        said.append("end")

    registry = Registry.from_profile(Profile(name="tests", url=url))
    with TestClient(application(registry, asynchronous, around=own)):
        assert said == ["start"]
    assert said == ["start", "end"]
    assert len(registry.parts.engines) == 0
    wrong = Registry.from_profile(Profile(name="tests", url=url.replace("app-secret", "wrong"), connect_timeout=1))
    with pytest.raises(Exception, match="password authentication failed"), TestClient(application(wrong, asynchronous)):
        pass


def test_it_is_imported_without_greenlet():
    import subprocess
    import sys

    program = (
        "import sys; sys.modules['greenlet'] = None\n"
        "from dbconfig.integrations.fastapi import SessionDep, TransactionDep, lifespan, health\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("style", ["sync", "async"])
def test_a_request_works_on_the_shard_that_a_dependency_has_chosen(tmp_path, style):
    shards = {name: {"url": f"sqlite:///{tmp_path}/{name}.db"} for name in ("eu", "us")}
    with Registry.from_profile(Profile(name="tests", url="sqlite://", shards=shards)) as made:
        made.create_tables(Parent)

        def region(x_region: Annotated[str, Header()] = "") -> str:
            return x_region.lower()

        app = FastAPI(dependencies=[on_shard(region, registry=made)])
        if style == "sync":

            @app.post("/parents")
            def add(name: str, found: Annotated[Session, session(transaction=True, registry=made)]):
                found.add(Parent(name=name))

            @app.get("/parents")
            def get(found: Annotated[Session, session(registry=made)]):
                return found.exec(select(Parent.name)).all()

        else:
            pytest.importorskip("aiosqlite")

            @app.post("/parents")
            async def add_later(
                name: str, found: Annotated[AsyncSession, async_session(transaction=True, registry=made)]
            ):
                found.add(Parent(name=name))

            @app.get("/parents")
            async def get_later(found: Annotated[AsyncSession, async_session(registry=made)]):
                return (await found.exec(select(Parent.name))).all()

        app.router.lifespan_context = lifespan(registry=made, verify=())
        with TestClient(app) as client:
            assert client.post("/parents", params={"name": "a"}, headers={"X-Region": "EU"}).status_code == 200
            assert client.get("/parents", headers={"X-Region": "eu"}).json() == ["a"]
            assert client.get("/parents", headers={"X-Region": "us"}).json() == []
            assert client.get("/parents", headers={"X-Region": "../us"}).status_code == 404
            assert client.get("/parents").status_code == 404
