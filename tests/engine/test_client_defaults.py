"""What the environment and other files say about a connection: merged with the profile, and named in errors."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dbconfig import ConfigError, Profile
from dbconfig.engine.connection_failures import server_of
from tests.registries import from_yaml, registry

LIBPQ = ["postgresql+psycopg2", "postgresql+psycopg"]
KINDS = {
    "session": {},
    "reading": {},
    "statement_timeout": {"statement_timeout": 5},
    "variables": {"variables": {"application_name": "x"}},
}


def search_path(db, *, read_only, asynchronous):
    async def ask():
        async with db.async_session(read_only=read_only) as session:
            return await session.scalar(text("SHOW search_path"))

    if asynchronous:
        return asyncio.run(ask())
    with db.session(read_only=read_only) as session:
        return session.scalar(text("SHOW search_path"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["PGOPTIONS", "service"])
@pytest.mark.parametrize(
    ("driver", "asynchronous"),
    [*((driver, False) for driver in LIBPQ), ("postgresql+psycopg", True), ("postgresql+asyncpg", True)],
)
def test_options_of_the_environment_act_in_every_session(
    postgresql, monkeypatch, tmp_path, driver, asynchronous, source, kind
):
    url = postgresql.url(driver)
    if source == "PGOPTIONS":
        monkeypatch.setenv("PGOPTIONS", "-c search_path=tenant_a")
    else:
        lines = {"host": postgresql.host, "port": postgresql.port, "dbname": postgresql.database}
        lines |= {"user": postgresql.user, "options": "-c search_path=tenant_a"}
        monkeypatch.setenv("PGPASSWORD", postgresql.password)
        (tmp_path / "services").write_text("[shop]\n" + "".join(f"{key}={value}\n" for key, value in lines.items()))
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        url = f"{driver}:///?service=shop"
    db = registry(url, **KINDS[kind])
    try:
        assert search_path(db, read_only=kind == "reading", asynchronous=asynchronous) == "tenant_a"
    finally:
        asyncio.run(db.async_dispose()) if asynchronous else db.dispose()


def shown(url, name, **settings):
    """Return what a setting is in a session: of an asynchronous one for the driver that has no other."""
    if url.startswith("postgresql+asyncpg"):

        async def ask():
            async with registry(url, **settings) as db, db.async_session() as session:
                return await session.scalar(text(f"SHOW {name}"))

        return asyncio.run(ask())
    with registry(url, **settings) as db, db.session() as session:
        return session.scalar(text(f"SHOW {name}"))


def failure(url, **settings):
    """Return why the connection failed."""
    with pytest.raises((SQLAlchemyError, ConfigError)) as caught:
        shown(url, "port", **settings)
    return caught.value


@pytest.mark.parametrize("driver", [*LIBPQ, "postgresql+asyncpg"])
def test_what_the_profile_says_counts_more_than_the_environment(postgresql, monkeypatch, driver):
    monkeypatch.setenv("PGOPTIONS", "-c search_path=tenant_a -c statement_timeout=1000")
    profile = {"statement_timeout": 5, "variables": {"search_path": "tenant_b"}}
    assert shown(postgresql.url(driver), "search_path", **profile) == "tenant_b"
    assert shown(postgresql.url(driver), "statement_timeout", **profile) == "5s"
    url = f"{postgresql.url(driver)}?options=-c%20work_mem%3D8MB"
    assert shown(url, "search_path", statement_timeout=5) != "tenant_a"  # as libpq itself does
    assert shown(url, "work_mem", statement_timeout=5) == "8MB"


@pytest.mark.parametrize("driver", [*LIBPQ, "postgresql+asyncpg"])
def test_variables_of_libpq_that_set_up_a_session_act_with_every_driver(postgresql, monkeypatch, driver):
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGAPPNAME", "from-outside")
    assert shown(postgresql.url(driver), "timezone") == "Asia/Tokyo"
    assert shown(postgresql.url(driver), "application_name") == "from-outside"
    assert shown(f"{postgresql.url(driver)}?application_name=own", "application_name") == "own"
    assert shown(postgresql.url(driver), "timezone", variables={"timezone": "Asia/Seoul"}) == "Asia/Seoul"


@pytest.mark.parametrize("named", ["PGSERVICE", "url", "connect_args"])
@pytest.mark.parametrize("driver", [*LIBPQ, "postgresql+asyncpg"])
def test_a_service_says_where_the_server_is(postgresql, monkeypatch, tmp_path, driver, named):
    lines = f"host=127.0.0.1\nport={postgresql.port}\nuser={postgresql.user}\napplication_name=shop\nsslmode=disable\n"
    (tmp_path / "services").write_text(f"[shop]\n{lines}dbname=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGHOST", "nobody.invalid")  # which libpq asks after the service
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGPASSWORD", postgresql.password)
    url, more = f"{driver}:///", {}
    if named == "PGSERVICE":
        monkeypatch.setenv("PGSERVICE", "shop")
    elif named == "url":
        url += "?service=shop"
    else:
        more = {"connect_args": {"service": "shop"}}
    assert shown(url, "application_name", **more) == "shop"
    assert shown(url, "port", **more) == str(postgresql.port)
    assert shown(f"{driver}://{postgresql.user}@/template1" + url[len(f"{driver}:///") :], "port", **more) == str(
        postgresql.port
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PGOPTIONS": "-c geqo=off -d 5"}, "has something else than `-c name=value`"),
        ({"PGCHANNELBINDING": "require"}, "'PGCHANNELBINDING'"),
        ({"PGREQUIREAUTH": "scram-sha-256"}, "'PGREQUIREAUTH'"),
        ({"PGHOSTADDR": "10.0.0.1"}, "'PGHOSTADDR'"),
        ({"PGSERVICE": "none"}, "'none' is not defined in any service file"),
        ({"PGSERVICE": "secret"}, "does not support 'password'"),
        ({"PGSERVICE": "strict"}, "does not support 'channel_binding'"),
        ({"PGSERVICE": "typo"}, "the port '54x' is not a number"),
    ],
)
def test_what_asyncpg_would_ignore_is_refused_with_its_place(monkeypatch, tmp_path, variables, words):
    services = tmp_path / "services"
    services.write_text("[secret]\npassword=hunter2\n[strict]\nchannel_binding=require\n[typo]\nport=54x\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def ask():
        async with registry("postgresql+asyncpg://u@h/d") as db:
            db.async_engine()

    with pytest.raises(ConfigError) as caught:
        asyncio.run(ask())
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    in_file = variables.get("PGSERVICE", "none") != "none"
    assert (str(services) if in_file else next(iter(variables))) in str(caught.value)


@pytest.mark.parametrize("place", ["url", "connect_args"])
def test_an_option_file_of_mysql_is_read_from_the_project_folder(mariadb, tmp_path, place):
    parts = f"user={mariadb.user}\npassword={mariadb.password}\nhost={mariadb.host}\nport={mariadb.port}\n"
    (tmp_path / "my.cnf").write_text(f"[client]\n{parts}database={mariadb.database}\n")
    profile = "url: mysql+pymysql:///?read_default_file=my.cnf\n"
    if place == "connect_args":
        profile = f"url: mysql+pymysql:///{mariadb.database}\nconnect_args: {{read_default_file: my.cnf}}\n"
    with from_yaml(tmp_path, profile) as db, db.session() as session:
        assert session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("content", [None, "#" * 300_000])
def test_an_option_file_that_cannot_be_read_is_told_with_the_engine(tmp_path, content):
    if content is not None:
        (tmp_path / "my.cnf").write_text(content)
    with (
        from_yaml(tmp_path, "url: mysql+pymysql:///d?read_default_file=my.cnf\n") as db,
        pytest.raises(ConfigError) as caught,
    ):
        db.engine()
    (problem,) = caught.value.problems
    assert (problem.slug, problem.location.line) == ("file-unreadable", 1)


def notes_of(url, **settings):
    with registry(url, connect_timeout=2, pool_timeout=2, **settings) as db, pytest.raises(SQLAlchemyError) as caught:
        db.engine().connect()
    return " ".join(caught.value.__notes__)


def test_a_note_names_what_was_tried_or_no_place(monkeypatch):
    monkeypatch.setenv("PGHOST", "127.0.0.9")
    monkeypatch.setenv("PGPORT", "1")
    notes = notes_of("postgresql+psycopg2://app@/shop")
    assert "nothing listens on 127.0.0.9:1" in notes
    assert "port comes from PGPORT, environment" in notes
    assert "nothing listens on 127.0.0.1:1" in notes_of("postgresql+psycopg2://app@127.0.0.1:1/shop")
    assert "/cloudsql/a:b:c/.s.PGSQL.1" in notes_of("postgresql+psycopg2://app@/shop?host=/cloudsql/a:b:c")
    socket = Profile(name="p", url="mysql+pymysql://app@/shop?unix_socket=/cloudsql/a:b:c").databases["default"]
    assert server_of(socket) == "/cloudsql/a:b:c"
    two = notes_of("postgresql+psycopg2://app@/shop?host=127.0.0.1:1&host=127.0.0.2:2")
    assert "127.0.0.1:1, 127.0.0.2:2" in two


@pytest.mark.parametrize("driver", ["postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql"])
def test_a_note_names_the_place_of_a_port_that_a_url_with_a_host_leaves_open(monkeypatch, tmp_path, driver):
    monkeypatch.setenv("PGPORT", "1")
    (tmp_path / "my.cnf").write_text("[client]\nport=1\n")
    file = f"?read_default_file={tmp_path}/my.cnf" if driver.startswith("mysql") else ""
    notes = notes_of(f"{driver}://app@127.0.0.1/shop{file}")
    assert f"port comes from {f'{tmp_path}/my.cnf:2' if file else 'PGPORT, environment'}" in notes
    assert "url comes from" in notes_of(f"{driver}://app@127.0.0.1:1/shop{file}")


def test_a_note_names_the_variable_of_a_database_or_a_user_that_does_not_exist(monkeypatch, postgresql):
    monkeypatch.setenv("PGDATABASE", "nowhere")
    url = f"postgresql+psycopg2://{postgresql.user}:{postgresql.password}@127.0.0.1:{postgresql.port}"
    assert "database comes from PGDATABASE, environment" in notes_of(url)
    monkeypatch.setenv("PGUSER", "nobody_at_all")
    assert "username comes from PGUSER, environment" in notes_of(
        url.replace(url[url.index("//") + 2 : url.index("@")], "")
    )


REFUSED = [
    *((driver, name, value) for driver in LIBPQ for name, value in (("timezone", "Mars/Phobos"), ("serach_path", "x"))),
    ("mysql+pymysql", "time_zone", "Mars/Phobos"),
    ("mysql+pymysql", "sql_modee", "x"),
    ("mysql+pymysql", "sql_mode", "NO_SUCH_MODE"),
    ("mysql+pymysql", "version", "x"),
]
REFUSED_ASYNC = [
    ("postgresql+asyncpg", "serach_path", "x"),
    ("postgresql+asyncpg", "timezone", "Mars/Phobos"),
    ("postgresql+psycopg", "serach_path", "x"),
    ("mysql+asyncmy", "sql_modee", "x"),
    ("mysql+aiomysql", "time_zone", "Mars/Phobos"),
]


@pytest.mark.parametrize(
    ("driver", "name", "value", "asynchronous"),
    [*((*each, False) for each in REFUSED), *((*each, True) for each in REFUSED_ASYNC)],
)
def test_a_variable_that_the_server_refuses_is_named(request, driver, name, value, asynchronous):
    server = request.getfixturevalue("postgresql" if driver.startswith("postgresql") else "mariadb")
    db = registry(server.url(driver), variables={name: value})

    async def connect():
        async with db.async_engine().connect():
            pass

    with pytest.raises(SQLAlchemyError) as caught:
        asyncio.run(connect()) if asynchronous else db.engine().connect()
    notes = " ".join(caught.value.__notes__)
    assert "dbconfig[variable-refused]" in notes
    assert f"variables.{name}" in notes
    db.dispose()


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("PGSSLMODE", "verify-ful", "sslmode"),
        ("PGTARGETSESSIONATTRS", "writer", "target_session_attrs"),
        ("PGSERVICE", "nowhere", "service"),
        ("PGTZ", "Mars/Phobos", "timezone"),
        ("PGDATESTYLE", "Martian", "datestyle"),
        ("PGOPTIONS", "-c serach_path=x", "serach_path"),
        ("PGSSLMODE", "require", "sslmode"),
    ],
)
@pytest.mark.parametrize("driver", [*LIBPQ, "postgresql+asyncpg"])
def test_a_variable_of_the_environment_that_is_refused_is_named_as_the_place(
    postgresql, monkeypatch, driver, variable, value, key
):
    monkeypatch.setenv(variable, value)
    failed = failure(postgresql.url(driver))
    if isinstance(failed, ConfigError):  # asyncpg knows no services: we look them up
        assert [problem.location.variable for problem in failed.problems] == [variable]
        return
    notes = " ".join(failed.__notes__)
    slug = "tls-refused" if value == "require" else "variable-refused" if key in _OF_SESSION else "client-setting"
    assert f"dbconfig[{slug}]" in notes
    assert f"{key} comes from {variable}, environment" in notes


_OF_SESSION = ("timezone", "datestyle", "serach_path")


@pytest.mark.parametrize("driver", [*LIBPQ, "postgresql+asyncpg"])
@pytest.mark.parametrize("where", ["connect_args", "url"])
def test_a_word_of_the_profile_that_the_driver_refuses_is_told_where_it_stands(postgresql, monkeypatch, driver, where):
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    url, more = postgresql.url(driver), {}
    if where == "url":
        url += f"{'&' if '?' in url else '?'}target_session_attrs=writer"
    else:
        more = {"connect_args": {"target_session_attrs": "writer"}}
    notes = " ".join(failure(url, **more).__notes__)
    assert "dbconfig[client-setting]: the driver rejects the setting 'target_session_attrs'" in notes or (
        where == "connect_args" and "'connect_args.target_session_attrs'" in notes
    )
    assert "environment" not in notes


@pytest.mark.parametrize("variable", ["PGSSLROOTCERT", "PGSSLCERT"])
def test_a_certificate_of_the_environment_that_is_not_there_is_not_taken_for_a_server_that_is_down(
    monkeypatch, variable
):
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv(variable, "/nowhere.pem")
    failed = failure("postgresql+asyncpg://u@127.0.0.1:1/d")
    assert isinstance(failed, ConfigError)
    assert [(problem.slug, problem.location.variable) for problem in failed.problems] == [("file-unreadable", variable)]


def test_libpq_and_asyncpg_leave_a_root_certificate_alone_that_no_mode_asks_for(postgresql, monkeypatch):
    monkeypatch.setenv("PGSSLROOTCERT", "/nowhere.pem")
    for driver in (*LIBPQ, "postgresql+asyncpg"):
        assert shown(postgresql.url(driver), "port") == str(postgresql.port)
