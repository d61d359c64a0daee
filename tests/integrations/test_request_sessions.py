"""FastAPI: how long a request's session may be used, when it holds a connection, and what it says afterwards."""

import asyncio
import gc
import importlib.util
import sys
import threading
import weakref
from collections import Counter
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Annotated, ClassVar

import anyio
import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Field, MetaData, Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dbconfig import Profile, Registry
from dbconfig.integrations.request_sessions import only_reads
from dbconfig.sessions.sessionmaker import SessionFactory
from tests.support.drivers import ASYNCHRONOUS, SYNCHRONOUS, params
from tests.support.processes import wait_until

pytest.importorskip("fastapi")

import httpx2
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from dbconfig.integrations import fastapi as ours
from dbconfig.integrations import fastapi_sessions
from dbconfig.integrations.fastapi import async_session, install, lifespan, session

SYSTEMS = ("postgresql", "mysql", "sqlite", "duckdb")
LIMIT = 30  # seconds; nothing here takes as long


class Base(SQLModel):
    metadata = MetaData()


class Item(Base, table=True):
    __tablename__ = "rs_item"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    return f"sqlite:///{tmp_path}/app.db" if request.param == "sqlite" else request.getfixturevalue("postgresql").url()


def registry_of(url, **settings):
    settings = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 1, **settings}
    registry = Registry.from_profile(Profile(name="tests", url=url, **settings))
    Base.metadata.create_all(registry.engine())
    return registry


@pytest.fixture
def registry(url):
    with registry_of(url) as made:
        yield made


class Sync:
    """What an endpoint does with a synchronous session."""

    def __init__(self, registry):
        self.registry = registry

    def dep(self, **options):
        return Annotated[Session, session(registry=self.registry, **options)]

    def in_use(self):
        return self.registry.engine().pool.checkedout()

    async def run(self, session, work):
        return await anyio.to_thread.run_sync(work, session)

    def stream(self, session, work, times=3):
        return (work(session) for _ in range(times))

    def task(self, tasks, session, work):
        tasks.add_task(work, session)


class Async(Sync):
    """The same with an asynchronous one."""

    def dep(self, **options):
        return Annotated[AsyncSession, async_session(registry=self.registry, **options)]

    def in_use(self):
        return self.pool.checkedout()

    async def run(self, session, work):
        self.pool = self.registry.async_engine().pool
        return await session.run_sync(work)

    async def run_once(self):
        async with self.registry.async_session() as session:
            await self.run(session, one)

    async def stream(self, session, work, times=3):
        for _ in range(times):
            yield await self.run(session, work)

    def task(self, tasks, session, work):
        tasks.add_task(self.run, session, work)


@pytest.fixture(params=[Sync, Async])
def way(request, registry):
    return request.param(registry)


@pytest.fixture
def app(registry):
    made = FastAPI(lifespan=lifespan(registry=registry))
    install(made, registry=registry)
    return made


@pytest.fixture
def client(app):
    with TestClient(app) as opened:
        yield opened


def one(session):
    return str(session.scalar(text("SELECT 1")))


def names(session):
    return sorted(session.scalars(select(Item.name)))


def add(name):
    def work(session):
        session.add(Item(name=name))
        session.flush()

    return work


def test_a_stream_reads_with_the_requests_session(app, client, way):
    @app.get("/")
    async def index(session: way.dep()):
        await way.run(session, one)
        return StreamingResponse(way.stream(session, one))

    for _ in range(3):
        assert client.get("/").text == "111"
    assert way.in_use() == 0


def test_a_background_task_commits_what_the_endpoint_has_written(app, client, way):
    def more(session):
        session.add(Item(name="task"))
        session.commit()

    @app.post("/")
    async def index(session: way.dep(), tasks: BackgroundTasks) -> int:
        await way.run(session, add("endpoint"))
        way.task(tasks, session, more)
        return 1

    assert client.post("/").json() == 1
    assert way.in_use() == 0
    with way.registry.session() as session:
        assert names(session) == ["endpoint", "task"]


def test_what_is_not_committed_when_the_background_tasks_have_run_is_rolled_back(app, client, way):
    @app.post("/")
    async def index(session: way.dep()) -> int:
        await way.run(session, add("lost"))
        return 1

    assert client.post("/").json() == 1
    assert way.in_use() == 0
    with way.registry.session() as session:
        assert names(session) == []


@pytest.mark.parametrize("use", ["stream", "task"])
@pytest.mark.parametrize("work", [one, lambda session: session.add(Item(name="lost")), Session.commit])
def test_a_committed_session_that_is_used_after_the_endpoint_names_the_route(app, client, way, use, work):
    @app.post("/items/{number}")
    async def index(number: int, session: way.dep(transaction=True), tasks: BackgroundTasks):
        await way.run(session, add("kept"))
        if use == "stream":
            return StreamingResponse(way.stream(session, work))
        way.task(tasks, session, work)
        return None

    for _ in range(3):
        with pytest.raises(InvalidRequestError, match=r"the session of POST /items/\{number\} has ended.*SessionDep"):
            client.post("/items/1")
    assert way.in_use() == 0
    with way.registry.session() as session:
        assert names(session) == ["kept"] * 3


def test_a_session_that_is_kept_after_the_request_says_that_it_has_ended(app, client, way):
    kept = []

    @app.get("/")
    async def index(session: way.dep()):
        kept.append(session)
        await way.run(session, one)

    client.get("/")
    session = getattr(kept[0], "sync_session", kept[0])
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="the session of GET / has ended"):
            session.scalar(text("SELECT 1"))
    assert way.in_use() == 0


def test_the_session_of_an_endpoint_that_is_a_generator_is_the_requests(app, client, way):
    if isinstance(way, Async):

        @app.get("/", response_class=StreamingResponse)
        async def index(session: way.dep()):
            async for each in way.stream(session, one):
                yield each
    else:

        @app.get("/", response_class=StreamingResponse)
        def index(session: way.dep()):
            yield from way.stream(session, one)

    for _ in range(3):
        assert client.get("/").text == "111"
    assert way.in_use() == 0


def test_a_dependency_with_yield_uses_the_session_after_the_response(app, client, way):
    found = []

    async def service(session: way.dep()):
        yield
        found.append(await way.run(session, one))

    @app.get("/")
    async def index(service: Annotated[None, Depends(service)]) -> int:
        return 1

    assert client.get("/").json() == 1
    assert (found, way.in_use()) == (["1"], 0)


# While the response is sent.


def after_the_endpoint(app, client, way, work, **options):
    """Return how many connections are in use while a response is sent whose endpoint has done some work."""
    found = []

    @app.get("/")
    async def index(session: way.dep(**options)):
        await way.run(session, work)

        async def body():
            found.append(way.in_use())
            yield "x"

        return StreamingResponse(body())

    assert client.get("/").text == "x"
    assert way.in_use() == 0
    return found[0]


def test_a_session_that_has_only_read_holds_no_connection_while_the_response_is_sent(app, client, way):
    def work(session):
        session.scalars(select(Item).where(Item.name.in_(["a", "b"])).order_by(Item.id)).all()

    assert after_the_endpoint(app, client, way, work) == 0


@pytest.mark.parametrize(
    "work",
    [
        add("x"),
        lambda session: session.add(Item(name="x")) or session.connection(),
        lambda session: session.execute(text("UPDATE rs_item SET name = 'y'")),
        lambda session: session.connection().execute(text("DELETE FROM rs_item")),
    ],
)
def test_a_session_that_has_written_keeps_its_connection_for_whoever_commits(app, client, way, work):
    assert after_the_endpoint(app, client, way, work) == 1


@pytest.mark.parametrize("kind", [Sync, Async])
def test_a_setting_of_the_transaction_is_there_in_the_stream(postgresql, kind):
    """Row security reads such a setting: without it a stream would see the rows of nobody, or of everybody."""
    with registry_of(postgresql.url()) as registry:
        app, way = FastAPI(lifespan=lifespan(registry=registry)), kind(registry)

        @app.get("/")
        async def index(session: way.dep()):
            await way.run(session, lambda session: session.scalar(text("SELECT set_config('a.b', 'mine', true)")))
            read = text("SELECT current_setting('a.b', true)")
            return StreamingResponse(way.stream(session, lambda session: session.scalar(read), times=1))

        with TestClient(app) as client:
            assert client.get("/").text == "mine"


def test_what_was_read_stays_readable_when_the_connection_is_given_back(app, client, way):
    with way.registry.transaction() as session:
        session.add(Item(name="read"))

    @app.get("/")
    async def index(session: way.dep()):
        item = await way.run(session, lambda session: session.scalars(select(Item)).one())

        async def body():
            assert way.in_use() == 0
            yield item.name

        return StreamingResponse(body())

    assert client.get("/").text == "read"


def test_a_request_leaves_nothing_to_the_garbage_collector(app, client, way):
    """A cycle for each request made the collector run over all requests in progress, and kept sessions for seconds."""
    sessions = []

    @app.get("/")
    async def index(session: way.dep()):
        sessions.append(weakref.ref(getattr(session, "sync_session", session)))
        return await way.run(session, one)

    gc.disable()
    try:
        for _ in range(5):
            assert client.get("/").status_code == 200
        assert [each() for each in sessions[:4]] == [None] * 4  # a client keeps its last request
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("statement", "harmless_on"),
    [
        ("SELECT item.id FROM item WHERE item.id IN (1, 2)", SYSTEMS),
        ("select count(*), max(id) from item where (a or (b and c))", SYSTEMS),
        ("SELECT row_number() OVER (PARTITION BY id ORDER BY id) FROM item JOIN other USING (id)", SYSTEMS),
        ("SELECT date_trunc('day', made), SUM(amount)::numeric(10, 2) FROM item GROUP BY 1", {"postgresql"}),
        ("SELECT pg_sleep(0.005)", {"postgresql"}),
        ("SELECT pg_catalog.now()", {"postgresql"}),
        ("SELECT DATE_FORMAT(made, '%Y'), SLEEP(0.005) FROM item", {"mysql"}),
        ("SELECT strftime('%Y', made) FROM item", {"sqlite"}),
        ("SELECT JSON_EXTRACT(doc, '$.a'), IFNULL(name, '') FROM item", {"mysql", "sqlite"}),
        ("SELECT week(7)", {"mysql"}),  # elsewhere a function of the application
        ("SELECT nextval('item_id_seq')", ()),
        ("SELECT LAST_INSERT_ID()", ()),
        ("SELECT GET_LOCK('a', 1)", ()),
        ("SELECT app.now()", ()),
        ("SELECT id FROM item FOR UPDATE", ()),
        ("SELECT id FROM item LOCK IN SHARE MODE", ()),
        ("SELECT id INTO other FROM item", ()),
        ("SELECT set_config('app.tenant', '1', true)", ()),
        ("SELECT pg_advisory_xact_lock(1)", ()),
        ("SELECT my.function(1)", ()),
        ("WITH gone AS (DELETE FROM item RETURNING id) SELECT id FROM gone", ()),
        ("SET LOCAL app.tenant = '1'", ()),
        ("INSERT INTO item VALUES (1)", ()),
        ("SAVEPOINT one", ()),
    ],
)
def test_which_statements_leave_nothing_in_their_transaction(statement, harmless_on):
    assert {system for system in SYSTEMS if only_reads(statement, system)} == set(harmless_on)


# One request has one session.


def imported_again():
    spec = importlib.util.spec_from_file_location("dbconfig_fastapi_again", ours.__file__)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.mark.parametrize("transaction", [False, True])
def test_one_request_has_one_session_from_wherever_the_dependency_comes(app, client, way, transaction):
    again = imported_again()
    make = again.async_session if isinstance(way, Async) else again.session

    async def user(session: way.dep(transaction=transaction)):
        return session

    async def other(session: Annotated[object, make(registry=way.registry, transaction=transaction)]):
        return session

    @app.get("/")
    async def index(
        session: way.dep(transaction=transaction),
        user: Annotated[object, Depends(user)],
        other: Annotated[object, Depends(other)],
    ) -> bool:
        await way.run(session, one)
        return session is user is other

    assert client.get("/").json() is True
    assert way.in_use() == 0


def test_a_sub_application_shares_nothing_with_the_next_request(app, client, way):
    sub = FastAPI()
    seen = []

    @sub.get("/items")
    async def index(session: way.dep()) -> int:
        seen.append(session)
        await way.run(session, one)
        return 1

    app.mount("/sub", sub)
    assert [client.get("/sub/items").json() for _ in range(2)] == [1, 1]
    assert seen[0] is not seen[1]
    assert way.in_use() == 0
    with pytest.raises(InvalidRequestError, match="the session of GET /sub/items has ended"):
        getattr(seen[0], "sync_session", seen[0]).connection()


def test_the_asynchronous_dependencies_are_the_same_object_at_each_import():
    assert ours.AsyncSessionDep is ours.AsyncSessionDep
    assert ours.AsyncTransactionDep is ours.AsyncTransactionDep


# Who waits for whom.


def test_idle_websockets_hold_neither_a_place_nor_a_connection(app, client, way):
    @app.websocket("/ws")
    async def index(socket: WebSocket, session: way.dep()):
        await socket.accept()
        await way.run(session, one)
        await way.run(session, Session.close)
        while await socket.receive_text() != "end":
            await socket.send_text(await way.run(session, one))
            await way.run(session, Session.close)

    @app.get("/")
    async def plain(session: way.dep()) -> str:
        return await way.run(session, one)

    with ExitStack() as stack:
        sockets = [stack.enter_context(client.websocket_connect("/ws")) for _ in range(3)]
        assert client.get("/").json() == "1"
        for each in sockets:
            each.send_text("more")
            assert each.receive_text() == "1"
            each.send_text("end")
    # The client does not wait until the end of a websocket has reached its application.
    wait_until(lambda: way.in_use() == 0, "the return of the connections")


def test_a_websockets_session_that_is_kept_names_its_route(app, client, way):
    kept = []

    @app.websocket("/ws/{room}")
    async def index(socket: WebSocket, room: str, session: way.dep()):
        kept.append(session)
        await socket.accept()
        await socket.close()

    with client.websocket_connect("/ws/1"):
        pass

    def told():
        try:
            getattr(kept[0], "sync_session", kept[0]).connection()
        except InvalidRequestError as error:
            return str(error)
        return ""  # the client does not wait until the end of a websocket has reached its application

    wait_until(lambda: "the session of WEBSOCKET /ws/{room} has ended" in told(), "the end of the session")


@pytest.mark.parametrize("first", ["read", "nothing"])
def test_requests_that_do_something_else_leave_an_idle_pool_to_others(app, registry, first):
    """The pool has two connections; two requests gave theirs back, or have not taken one yet."""
    way = Sync(registry)

    async def main():
        entered, ended = 0, anyio.Event()

        @app.get("/slow")
        async def slow(session: way.dep()):
            nonlocal entered
            if first == "read":
                await way.run(session, one)
                await way.run(session, Session.close)
            entered += 1
            await ended.wait()
            return await way.run(session, one)

        @app.get("/quick")
        async def quick(session: way.dep()):
            return await way.run(session, one)

        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=LIMIT) as client:
            slow_ones = [asyncio.create_task(client.get("/slow")) for _ in range(2)]
            async with asyncio.timeout(LIMIT):
                while entered < 2 or way.in_use():  # a connection that nobody needs any more may still be opened
                    await asyncio.sleep(0.01)
                answers = [(await client.get("/quick")).status_code for _ in range(3)]
                ended.set()
                answers += [(await each).status_code for each in slow_ones]
        return answers

    assert asyncio.run(main()) == [200] * 5


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_requests_wait_for_a_place_under_either_event_loop(url, backend):
    if backend == "trio":
        pytest.importorskip("trio")
    with registry_of(url, pool_timeout=LIMIT) as registry:
        app, way = FastAPI(lifespan=lifespan(registry=registry)), Sync(registry)
        install(app, registry=registry)
        asyncio.run(Async(registry).run_once())  # there are event loops already, of another part of the program

        @app.get("/session")
        def index(session: way.dep()):
            return one(session)

        @app.get("/transaction")
        def within(session: way.dep(transaction=True)):
            return one(session)

        async def main():
            codes = []

            async def get(path):
                codes.append((await client.get(path)).status_code)

            transport = httpx2.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=LIMIT) as client,
                anyio.create_task_group() as group,
            ):
                for number in range(60):
                    group.start_soon(get, ("/session", "/transaction", "/health/db")[number % 3])
            return codes

        assert anyio.run(main, backend=backend) == [200] * 60
        assert way.in_use() == 0


def test_an_asynchronous_session_under_trio_says_so(registry):
    trio = pytest.importorskip("trio")

    async def main():
        async with registry.async_session() as session:
            await session.exec(select(1))

    with pytest.raises(RuntimeError, match="need asyncio, and this runs under trio"):
        trio.run(main)


@pytest.mark.parametrize("when", ["endpoint", "stream", "waiting"])
def test_a_client_that_goes_away_leaves_no_connection_and_no_place_behind(app, way, when):
    """The server cancels such a request at whatever it awaits."""

    async def main():
        reached = anyio.Event()

        async def block():
            reached.set()
            await anyio.sleep_forever()

        @app.get("/")
        async def index(session: way.dep()):
            await way.run(session, add("lost"))
            if when == "endpoint":
                await block()

            async def body():
                yield await way.run(session, one)
                await block()

            return StreamingResponse(body())

        async def send(message):
            return None

        async def receive():
            await anyio.sleep_forever()

        scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1"}
        scope |= {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [], "root_path": ""}

        async def request():
            await app({**scope, "client": None, "server": None, "scheme": "http"}, receive, send)

        for _ in range(4):  # more than there are places
            with anyio.fail_after(LIMIT):
                async with anyio.create_task_group() as group:
                    reached = anyio.Event()
                    group.start_soon(request)
                    await reached.wait()
                    if when == "waiting" and not isinstance(way, Async):
                        group.start_soon(request)
                        group.start_soon(request)
                        await anyio.sleep(0)
                    group.cancel_scope.cancel()
            assert way.in_use() == 0
        await way.registry.async_dispose()

    anyio.run(main)


def test_threads_stay_free_for_those_who_have_a_connection(url):
    """All requests need a thread twice, and a connection in between; there are more of them than threads."""
    with registry_of(url, pool_timeout=LIMIT) as registry:
        app, way = FastAPI(), Sync(registry)

        def user(session: way.dep()):
            return one(session)

        @app.get("/")
        def index(session: way.dep(), user: Annotated[str, Depends(user)]):
            return user + one(session)

        async def main():
            codes = []

            async def get():
                codes.append((await client.get("/")).status_code)

            transport = httpx2.ASGITransport(app)
            async with (
                httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=LIMIT) as client,
                anyio.create_task_group() as group,
            ):
                for _ in range(100):
                    group.start_soon(get)
            return codes

        assert anyio.run(main) == [200] * 100
        assert way.in_use() == 0


# What a request costs.


@pytest.fixture
def costs(monkeypatch):
    """Count what is expensive: listeners that SQLAlchemy adds, threads, and tasks of asyncio."""
    found = Counter()

    def counting(module, name):
        own = getattr(module, name)

        def call(*arguments, **keywords):
            found[name] += 1
            return own(*arguments, **keywords)

        monkeypatch.setattr(module, name, call)

    counting(sqlalchemy.event, "listen")
    counting(anyio.to_thread, "run_sync")
    counting(fastapi_sessions, "run_sync")
    counting(asyncio, "create_task")
    return found


# The second calls a function that may leave a state: the transaction ends with the request, not with the endpoint.
@pytest.mark.parametrize("query", [select(1), select(sqlalchemy.func.abs(1)), None], ids=["read", "call", "unused"])
def test_a_request_adds_no_listeners_and_takes_a_thread_only_for_what_speaks_to_the_server(app, way, costs, query):
    if isinstance(way, Async):

        @app.get("/", response_model=None)  # its validation would take a thread
        async def index(session: way.dep()):
            return 1 if query is None else (await session.exec(query)).one()
    else:

        @app.get("/", response_model=None)  # its validation would take a thread
        def index(session: way.dep()):
            return 1 if query is None else session.exec(query).one()

    async def main():
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=LIMIT) as client:
            await client.get("/")
            costs.clear()
            assert (await client.get("/")).json() == 1
            found = dict(costs)
        engine = way.registry.async_engine().sync_engine if isinstance(way, Async) else way.registry.engine()
        assert not engine._has_events  # with a listener SQLAlchemy prepares each statement for all kinds of events
        await way.registry.async_dispose()
        return found

    # Stock takes three threads for a synchronous session, and a task for the end of an asynchronous one.
    assert asyncio.run(main()) == ({} if isinstance(way, Async) else {"run_sync": 1 if query is None else 2})


class Listening(Session):
    """An application's session with a listener of its own, added before ours could be."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        sqlalchemy.event.listen(self, "after_begin", lambda *details: None)


class Closing(Session):
    """One that does something in the database when it closes."""

    ended: ClassVar[list[str]] = []

    def close(self):
        thread = threading.current_thread() is not threading.main_thread()
        self.ended.append(f"{super().connection().scalar(text('SELECT 1'))} {thread}")
        super().close()


@pytest.mark.parametrize("kind", [Sync, Async])
def test_sessions_with_listeners_of_their_own_are_watched_too(url, kind):
    with Registry.from_profile(Profile(name="tests", url=url), session_class=Listening) as registry:
        Base.metadata.create_all(registry.engine())
        app, way, kept = FastAPI(lifespan=lifespan(registry=registry)), kind(registry), []

        @app.get("/kept")
        async def index(session: way.dep()):
            kept.append(getattr(session, "sync_session", session))
            await way.run(session, one)

        with TestClient(app) as client:
            client.get("/kept")
            assert after_the_endpoint(app, client, way, add("x")) == 1
            with pytest.raises(InvalidRequestError, match="the session of GET /kept has ended"):
                kept[0].connection()


@pytest.mark.parametrize("kind", [Sync, Async])
def test_a_session_class_that_closes_in_its_own_way_does_so(url, kind):
    with Registry.from_profile(Profile(name="tests", url=url), session_class=Closing) as registry:
        app, way = FastAPI(lifespan=lifespan(registry=registry)), kind(registry)

        @app.get("/")
        async def index(session: way.dep()):
            await way.run(session, one)

        Closing.ended.clear()
        with TestClient(app) as client:
            client.get("/")
            assert way.in_use() == 0
        assert Closing.ended == ["1 True"]  # a loop of its own, or a thread


def test_an_engine_that_the_registry_did_not_create_loses_nothing(app, client, registry, url):
    """A test's connection may be older than the application, whose statements must be seen all the same."""
    other = sqlalchemy.create_engine(url)
    with other.connect() as connection:
        made = registry.parts.engines.factory("default")
        make = partial(Session, connection, join_transaction_mode="create_savepoint")
        factory = SessionFactory(made.engine, make, made.writing, made.unit_of_work)
        readers = registry.parts.engines.readers("default")
        with registry.parts.engines.override({"default": (factory, readers)}):

            @app.get("/")
            def index(session: Annotated[Session, session(registry=registry)]):
                session.execute(text("INSERT INTO rs_item (name) VALUES ('kept')"))
                return StreamingResponse(str(session.scalar(text("SELECT count(*) FROM rs_item"))) for _ in range(1))

            assert client.get("/").text == "1"
    other.dispose()


# Start.


def test_the_documented_start_works_where_the_profile_names_an_asynchronous_driver(tmp_path):
    registry = Registry.from_profile(Profile(name="tests", url=f"sqlite+aiosqlite:///{tmp_path}/app.db"))
    app = FastAPI(lifespan=lifespan(registry=registry))
    install(app, registry=registry)
    with TestClient(app) as client:
        assert client.get("/health/db").json() == {"status": "ok", "databases": {"default": "ok"}}


# Rows that are fetched after the endpoint.

_RECURSION = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i FROM n"
MANY = text(f"SELECT i FROM ({_RECURSION}) AS numbers")  # begins with SELECT: such a session may rest
ALL = [str(number) for number in range(1, 901)]
SOME = 30  # rows in one piece of a response: each piece is a change of threads, the rows are still fetched one by one


def pieces(numbers):
    while some := list(islice(numbers, SOME)):
        yield "".join(f"{number}\n" for number in some)


def registry_on(driver, request):
    pool = {"pool_size": 2, "max_overflow": 0, "pool_timeout": LIMIT}
    return Registry.from_profile(Profile(name="tests", url=driver.url(request), **pool))


READING = pytest.mark.parametrize(
    "options", [{}, {"read_only": True}, {"snapshot": True}], ids=lambda each: "".join(each)
)
TRUNCATES = pytest.mark.filterwarnings("error:Previous unbuffered result")


@TRUNCATES
@READING
@pytest.mark.parametrize("driver", params(SYNCHRONOUS))
@pytest.mark.parametrize("use", ["stream", "task"])
def test_what_the_endpoint_has_begun_to_read_is_read_to_its_end(request, driver, options, use):
    app, found, in_use = FastAPI(), [], []
    with registry_on(driver, request) as registry:

        @app.get("/")
        def index(session: Annotated[Session, session(registry=registry, **options)], tasks: BackgroundTasks):
            result = session.execute(MANY.execution_options(stream_results=True, max_row_buffer=10)).scalars()
            if use == "task":
                return tasks.add_task(lambda: found.extend(map(str, result)))
            return StreamingResponse(pieces(result))

        with TestClient(app) as client:
            for _ in range(3):
                found.clear()
                assert client.get("/").text.split() == (ALL if use == "stream" else ["null"])
                assert use == "stream" or found == ALL
                in_use.append(registry.stats().used)
    assert in_use == [0, 0, 0]


@TRUNCATES
@READING
@pytest.mark.parametrize("driver", params(ASYNCHRONOUS))
def test_what_an_asynchronous_endpoint_has_begun_to_read_is_read_to_its_end(request, driver, options):
    app, in_use = FastAPI(), []
    with registry_on(driver, request) as registry:

        @app.get("/")
        async def index(session: Annotated[AsyncSession, async_session(registry=registry, **options)]):
            result = await session.stream(MANY)

            async def body():
                part = ""
                async for number in result.scalars():
                    part += f"{number}\n"
                    if number % SOME == 0:
                        yield part
                        part = ""

            in_use.append(registry.async_engine().pool.checkedout())
            return StreamingResponse(body())

        @app.get("/used")
        async def used() -> int:
            return registry.async_engine().pool.checkedout()

        with TestClient(app) as client:
            for _ in range(3):
                assert client.get("/").text.split() == ALL
                assert client.get("/used").json() == 0
    assert in_use == ([1, 1, 1] if not options else [0, 0, 0])  # reading has connections of its own


@pytest.mark.parametrize("driver", params(SYNCHRONOUS))
def test_a_result_that_was_read_keeps_no_connection(request, driver):
    app, found = FastAPI(), []
    with registry_on(driver, request) as registry:

        @app.get("/")
        def index(session: Annotated[Session, session(registry=registry)]):
            numbers = session.execute(text("SELECT 1 UNION SELECT 2").execution_options(stream_results=True)).all()

            async def body():
                found.append(registry.stats().used)
                yield str(len(numbers))

            return StreamingResponse(body())

        with TestClient(app) as client:
            assert client.get("/").text == "2"
    assert found == [0]
