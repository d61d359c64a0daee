"""No frame of the library holds a secret when an error leaves it: error reporters print local variables."""

import asyncio
import gc
import os
import sys
import traceback
import weakref
from types import SimpleNamespace

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

import dbconfig
from dbconfig import Profile, load
from dbconfig.engine import secret_frames
from tests.registries import registry

CANARY = "CaNaRy-s3cr3t"
OURS = os.path.dirname(dbconfig.__file__)
TESTS = os.path.dirname(__file__)


def of_library(file):
    return file.startswith(OURS)


def of_anybody(file):
    return not file.startswith(TESTS)


def holders(error, of=of_library):
    """Return the frames that hold the canary, of the library alone or of all, through all causes and contexts."""
    found, seen, waiting = set(), set(), [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        waiting += [each.__cause__, each.__context__]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if of(frame.f_code.co_filename):
                names = [name for name, value in frame.f_locals.items() if CANARY in repr(value)]
                found |= {f"{frame.f_code.co_name}: {name}" for name in names}
    return found


def refused(work, of=of_library):
    try:
        work()
    except Exception as error:
        return holders(error, of)
    pytest.fail("nothing was refused")


def connect(url, **settings):
    with registry(url, connect_timeout=1, pool_timeout=1, **settings) as db:
        db.engine().connect()


def connect_async(url, **settings):
    async def main():
        async with registry(url, connect_timeout=1, pool_timeout=1, **settings) as db, db.async_engine().connect():
            pass

    asyncio.run(main())


POSTGRESQL = ["postgresql+psycopg2://u@127.0.0.1:1/d", "postgresql+psycopg://u@127.0.0.1:1/d"]


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        *((url, settings) for url in POSTGRESQL for settings in ({}, {"read_only": True}, {"pgbouncer": True})),
        *((url, {"read_only": True, "pgbouncer": True}) for url in POSTGRESQL),
        (POSTGRESQL[0], {"fast_begin": True}),
        *(("mysql+pymysql://u@127.0.0.1:1/d", settings) for settings in ({}, {"read_only": True})),
    ],
)
def test_a_connection_that_is_refused(url, settings):
    read_only = settings.get("read_only", False)
    own = {key: value for key, value in settings.items() if key != "read_only"}

    def work():
        with (
            registry(url, password=CANARY, connect_timeout=1, pool_timeout=1, **own) as db,
            db.session(read_only=read_only) as session,
        ):
            session.connection()

    assert refused(work) == set()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://u@127.0.0.1:1/d",
        "postgresql+psycopg://u@127.0.0.1:1/d",
        "mysql+asyncmy://u@127.0.0.1:1/d",
        "mysql+aiomysql://u@127.0.0.1:1/d",
    ],
)
def test_an_asynchronous_connection_that_is_refused(url):
    for settings in [{}, {"pgbouncer": True}] if url.startswith("postgresql") else [{}]:
        assert refused(lambda settings=settings: connect_async(url, password=CANARY, **settings)) == set()


NOWHERE = "postgresql+psycopg2://u@127.0.0.1:1/d"


@pytest.mark.parametrize(
    "content", [CANARY + "\nx\n", CANARY + "\0", CANARY * 10_000, CANARY.encode("utf-16"), CANARY.encode() + b"\xff"]
)
def test_a_secret_file_that_is_none(tmp_path, content):
    path = tmp_path / "secret"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    assert refused(lambda: connect(NOWHERE, password={"file": str(path)})) == set()


def test_a_variable_that_is_no_secret(monkeypatch):
    monkeypatch.setenv("PW", CANARY + "\nx")
    assert refused(lambda: connect(NOWHERE, password={"env": "PW"})) == set()


@pytest.mark.parametrize("value", [CANARY + "\nx", [CANARY], CANARY.encode(), ""])
def test_a_provider_that_returns_no_password(value):
    def work():
        with registry(NOWHERE, password={"provider": "vault"}) as db:
            db.password_provider("vault", lambda settings: value)
            db.engine().connect()

    assert refused(work) == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"url": NOWHERE, "password": CANARY, "pool_size": -1},
        {"url": NOWHERE, "password": CANARY + "\nx"},
        {"url": f"postgresql://u:{CANARY}@h:x/d"},
        {"url": f"postgresql://u:{CANARY}@@h/d"},
        {"url": NOWHERE, "connect_args": {"passwd": CANARY}},
        {"url": NOWHERE, "variables": {"app.token": [CANARY]}},
        {"url": NOWHERE, "query": {"password": CANARY}},
        {"url": NOWHERE, "passwrd": CANARY},
        {"url": NOWHERE, "password": CANARY, "replicas": [{"host": "h", "password": CANARY, "protected": True}]},
    ],
)
def test_a_profile_in_code_that_cannot_be_used(settings):
    assert refused(lambda: Profile(name="p", **settings)) == set()


@pytest.mark.parametrize(
    "text",
    [
        f"password: {CANARY}: x\n",
        f"password: '{CANARY}\n",
        f"password: !{CANARY}\n",
        f"- {CANARY}\n",
        f"{CANARY}\n",
        f"url: sqlite://\npassword: {CANARY}\n",
        f"url: postgresql://u:{CANARY}@h:x/d\n",
        f"url: postgresql://h/d\npassword: {CANARY}${{NONE}}\n",
        f"url: postgresql://h/d\npassword: {CANARY}$NONE\n",
        f"url: postgresql://h/d\npassword: {CANARY}\npool_sise: 1\n",
        f"password: {CANARY}\x07\n",
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, text):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "development.yaml").write_text(text)
    assert refused(lambda: load(path=tmp_path / "config", environ={})) == set()


@pytest.mark.parametrize("line", [f"PW={CANARY}\n{CANARY}\n", f"PW='{CANARY}\n", f"PW={CANARY}\n" * 20_000])
def test_a_dotenv_file_that_cannot_be_used(tmp_path, line):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "development.yaml").write_text("url: sqlite://\n")
    (tmp_path / ".env").write_text(line)
    assert refused(lambda: load(path=tmp_path / "config", environ={})) == set()


def test_a_value_of_the_environment_that_is_wrong(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "development.yaml").write_text("url: postgresql://h/d\npassword: ${PW}\n")
    for environ in ({"PW": CANARY + "\nx"}, {"PW": CANARY, "DBCONFIG_PASSWRD": CANARY}):
        loading = lambda environ=environ: load(path=tmp_path / "config", environ=_Quiet(environ))  # noqa: E731
        assert refused(loading) == set()


class _Quiet(dict):
    """An environment as os.environ is not: whose repr would show everything."""

    def __repr__(self):
        return "<environ>"


# Frames of the drivers and of SQLAlchemy

SERVERS = {
    "postgresql+psycopg2": "postgresql",
    "postgresql+psycopg": "postgresql",
    "postgresql+asyncpg": "postgresql",
    "mysql+pymysql": "mariadb",
    "mysql+asyncmy": "mariadb",
    "mysql+aiomysql": "mariadb",
}
CASES = [
    *((drivername, False) for drivername in ("postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql")),
    *((drivername, True) for drivername in SERVERS if drivername not in ("postgresql+psycopg2", "mysql+pymysql")),
]


def place(drivername, way, request):
    """Return the URL of a server that is there, or is not, or of two that are not, without a password."""
    if way == "rejected":
        server = request.getfixturevalue(SERVERS[drivername])
        return f"{drivername}://{server.user}@{server.host}:{server.port}/{server.database}"
    return f"{drivername}://u@127.0.0.1:1/d" if way == "refused" else f"{drivername}://u@/d"


def opened(asynchronous, url, **settings):
    if asynchronous:
        connect_async(url, **settings)
    else:
        connect(url, **settings)


@pytest.mark.parametrize("way", ["refused", "rejected", "two hosts"])
@pytest.mark.parametrize(("drivername", "asynchronous"), CASES)
def test_no_frame_of_a_failed_connect_shows_the_password(drivername, asynchronous, way, request):
    url = place(drivername, way, request)
    more = {"host": ["127.0.0.1:1", "127.0.0.1:2"]} if way == "two hosts" else {}
    assert refused(lambda: opened(asynchronous, url, password=CANARY, **more), of_anybody) == set()


@pytest.mark.parametrize(("drivername", "asynchronous"), CASES)
def test_a_listener_that_connects_by_itself_gets_the_password(drivername, asynchronous, request):
    server = request.getfixturevalue(SERVERS[drivername])
    shown = []

    def listen(engine):
        @event.listens_for(engine, "do_connect")
        def connect_here(dialect, record, arguments, parameters):
            shown.append(repr(parameters))
            return dialect.loaded_dbapi.connect(*arguments, **parameters)

    async def main():
        async with registry(server.url(drivername)) as db:
            listen(db.async_engine().sync_engine)
            async with db.async_engine().connect() as connection:
                assert (await connection.execute(text("SELECT 1"))).scalar() == 1

    if asynchronous:
        asyncio.run(main())
    else:
        with registry(server.url(drivername)) as db:
            listen(db.engine())
            with db.engine().connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
    assert shown
    assert server.password not in "".join(shown)


def test_secret_parameters_beside_the_password_are_in_no_frame(monkeypatch):
    monkeypatch.setenv("KEY", CANARY)
    for drivername in ("postgresql+psycopg2", "postgresql+psycopg"):
        url, arguments = f"{drivername}://u@127.0.0.1:1/d", {"sslpassword": {"env": "KEY"}}
        assert refused(lambda url=url, given=arguments: connect(url, connect_args=given), of_anybody) == set()


class Dialect:
    """A driver's frames below ours, one of which catches an error."""

    def connect(self, **parameters):
        conninfo = f"password={parameters['password']}"
        try:
            self.look(conninfo)
        except KeyError as error:
            raise ExceptionGroup("no", [error, ValueError(1)]) from error

    def look(self, conninfo):
        raise KeyError(1)


def failed():
    engine = SimpleNamespace(dialect=Dialect())
    secret_frames.keep_out(engine)
    try:
        engine.dialect.connect(password=secret_frames.Masked(CANARY))
    except ExceptionGroup as error:
        return error


def test_frames_without_variables_look_like_those_they_stand_for():
    error = failed()
    assert holders(error, lambda file: True) == set()
    lines = "".join(traceback.format_exception(error))
    for code in ("self.look(conninfo)", "raise KeyError(1)", 'raise ExceptionGroup("no", [error, ValueError(1)])'):
        assert code in lines
    names = [frame.f_code.co_qualname for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert names == ["failed", "keep_out.<locals>.connect_in_secret", "Dialect.connect"]
    of_cause = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__cause__.__traceback__)]
    assert of_cause == [__name__] * 2


def test_an_error_whose_frames_have_no_variables_is_freed_at_once():
    gc.disable()
    try:
        alive = weakref.ref(failed())
        assert alive() is None
    finally:
        gc.enable()


def test_the_error_that_the_caller_handles_keeps_its_frames():
    try:
        raise LookupError
    except LookupError as error:
        outer, inner = error, failed()
    assert inner.__cause__.__context__ is outer
    assert outer.__traceback__.tb_frame is sys._getframe()


@pytest.mark.parametrize("drivername", ["postgresql+psycopg", "postgresql+asyncpg", "mysql+asyncmy", "mysql+aiomysql"])
def test_the_error_that_a_task_handles_keeps_its_frames(drivername):
    async def main():
        async with registry(f"{drivername}://u@127.0.0.1:1/d", password=CANARY, pool_timeout=1) as db:
            try:
                raise LookupError
            except LookupError as error:
                outer = error
                with pytest.raises(DBAPIError) as raised:
                    await db.async_engine().connect()
        assert holders(raised.value, of_anybody) == set()
        assert outer.__traceback__.tb_frame is sys._getframe()

    asyncio.run(main())
