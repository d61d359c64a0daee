"""Query tags: the server sees which part of the application sent a statement, with every driver, sync and async."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import await_only
from sqlmodel import Session

from dbconfig import ConfigError, Profile, Registry
from dbconfig.engine.query_tags import comment
from tests.sessions.conftest import Units
from tests.sessions.conftest import units as units

OWN = {
    "postgresql": "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() AND :x = :x",
    "mariadb": "SELECT info FROM information_schema.processlist WHERE id = connection_id() AND :x = :x",
}


def seen_by_server(units: Units, db: Registry, **tags: str) -> str:
    """Return a statement as the server has got it; SQLite's driver tells what it executes."""
    found: list[str] = []

    def work(session: Session) -> None:
        if units.system == "sqlite":
            driver: Any = session.connection().connection.driver_connection
            traced = driver.set_trace_callback(found.append)
            if units.asynchronous:
                await_only(traced)
            session.execute(text("SELECT :x"), {"x": "100 %"})
            traced = driver.set_trace_callback(None)
            if units.asynchronous:
                await_only(traced)
        else:
            found.append(str(session.execute(text(OWN[units.system]), {"x": "100 %"}).scalar_one()))

    with db.tags(**tags):
        units.run(work, db)
    return found[-1]


def test_the_tags_stand_behind_the_statement(units: Units) -> None:
    db = units.open(query_tags=["application"], application_name="shop")
    assert seen_by_server(units, db).endswith(" /*application='shop'*/")


def test_what_the_application_says_is_escaped_and_sorted(units: Units) -> None:
    db = units.open(query_tags=["application"], application_name="shop")
    found = seen_by_server(units, db, job="it's 100% */ night", area="ä")
    assert found.endswith(" /*application='shop',area='%C3%A4',job='it%27s%20100%25%20%2A%2F%20night'*/")


def test_without_query_tags_nothing_is_tagged(units: Units) -> None:
    db = units.open()
    assert "/*" not in seen_by_server(units, db, job="nightly")


def test_statements_without_parameters_are_tagged_as_well(units: Units) -> None:
    db = units.open(query_tags=["application"], application_name="50 %")

    def work(session: Session) -> None:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
        assert session.connection().exec_driver_sql("SELECT 2").scalar_one() == 2
        session.execute(text("INSERT INTO t VALUES (:x)"), [{"x": 1}, {"x": 2}])
        assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 2

    units.run(work, db)


def test_many_rows_are_still_sent_in_one_statement(units: Units) -> None:
    """Drivers of MySQL do so where they recognize `INSERT … VALUES (…)` from its first word to its last."""
    if units.system != "mariadb":
        pytest.skip("on other systems SQLAlchemy or the driver does it in another way")
    db = units.open(query_tags=["application"], application_name="100 %")
    count = text("SHOW SESSION STATUS LIKE 'Com_insert'")

    def work(session: Session) -> None:
        before = int(session.execute(count).one()[1])
        session.execute(text("INSERT INTO t VALUES (:x)"), [{"x": each} for each in range(5)])
        session.execute(text("INSERT INTO t VALUES (:x)"), {"x": 7})
        assert int(session.execute(count).one()[1]) - before == 2
        assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 6

    units.run(work, db)


def sent(**settings: Any) -> tuple[Registry, list[str]]:
    db = Registry.from_profile(Profile(name="tagged", url="sqlite://", **settings))
    statements: list[str] = []

    plainly = DefaultDialect.do_execute

    def noted(dialect: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)
        plainly(dialect, cursor, statement, *rest)

    with pytest.MonkeyPatch.context() as patch:  # an engine takes what is there when it is made
        patch.setattr(DefaultDialect, "do_execute", noted)
        db.engine()
    return db, statements


def test_threads_and_tasks_share_the_tags_of_their_context() -> None:
    db, statements = sent(query_tags=["application"], application_name="x")

    def ask() -> None:
        with db.session() as session:
            session.execute(text("SELECT 1"))

    async def main() -> None:
        await asyncio.to_thread(ask)

    with db, db.tags(job="outer"):
        with db.tags(step="two"):
            asyncio.run(main())
        ask()
        alone = threading.Thread(target=ask)
        alone.start()
        alone.join()
    assert [each.partition("SELECT 1 ")[2] for each in statements] == [
        "/*application='x',job='outer',step='two'*/",
        "/*application='x',job='outer'*/",
        "/*application='x'*/",
    ]


def test_a_statement_with_a_comment_of_its_own_is_left_alone() -> None:
    db, statements = sent(query_tags=["application"])
    with db, db.session() as session:
        session.execute(text("SELECT 1 /* mine */"))
    assert statements == ["SELECT 1 /* mine */"]


@pytest.mark.parametrize("name", ["Job", "a b", "*/", "x" * 40])
def test_names_that_are_none_are_refused(name: str) -> None:
    db, _ = sent()
    with db, pytest.raises(ValueError, match="the name of a query tag"), db.tags(**{name: "x"}):
        raise AssertionError
    with pytest.raises(ValueError, match="the value of a query tag must be text"), db.tags(job=1):  # type: ignore[arg-type]
        raise AssertionError


def test_a_percent_sign_reaches_the_server_once_however_a_statement_is_sent(units: Units) -> None:
    if units.system == "sqlite":
        pytest.skip("it has no list of statements")
    db = units.open(query_tags=["application"], application_name="50 % off")
    seen: list[str] = []

    def work(session: Session) -> None:
        bare = OWN[units.system].replace(" AND :x = :x", "")
        seen.append(session.execute(text(bare)).scalar_one())
        seen.append(session.connection().exec_driver_sql(bare).scalar_one())
        plainly = session.connection().execution_options(no_parameters=True)
        seen.append(plainly.exec_driver_sql(bare).scalar_one())

    units.run(work, db)
    assert len(seen) == 3
    assert all(str(each).endswith(" /*application='50%20%25%20off'*/") for each in seen), seen


@pytest.mark.parametrize(
    "value", ["*/ DROP TABLE t; --", "a\nb\r\n", "\x00", "\ud800", "\u202e*/\u2028", "'", "\\'", "/*", "💥" * 20]
)
def test_no_value_ends_the_comment_or_the_statement(units: Units, value: str) -> None:
    found = seen_by_server(units, units.open(query_tags=["application"], application_name="x"), job=value)
    comments = re.findall(r" /\*(.*?)\*/", found)
    assert len(comments) == 1
    assert found.endswith(f" /*{comments[0]}*/")
    assert re.fullmatch(r"application='x',job='[A-Za-z0-9_.~%-]*'", comments[0])


def test_a_thread_begins_without_tags_and_takes_those_of_a_context_that_it_is_given() -> None:
    db, statements = sent(query_tags=["application"], application_name="x")

    def ask() -> None:
        with db.session() as session:
            session.execute(text("SELECT 1"))

    with db, db.tags(job="nightly"), ThreadPoolExecutor(1) as executor:
        executor.submit(ask).result(30)
        executor.submit(contextvars.copy_context().run, ask).result(30)
    assert [each.partition("SELECT 1 ")[2] for each in statements] == [
        "/*application='x'*/",
        "/*application='x',job='nightly'*/",
    ]


def test_percent_is_doubled_where_the_driver_reads_it() -> None:
    assert comment((("a", "/"),), True) == " /*a='%%2F'*/"
    assert comment((("a", "/"),), False) == " /*a='%2F'*/"
    assert comment((), False) == ""


def test_unknown_tags_are_refused() -> None:
    with pytest.raises(ConfigError, match="'rout' is not one of application, route, task, traceparent") as caught:
        Profile(name="tagged", url="sqlite://", query_tags=["rout"])
    assert "did you mean 'route'?" in str(caught.value)
    assert Profile(name="t", url="sqlite://", query_tags="route, task").database("default").query_tags == (
        "route",
        "task",
    )


def test_the_trace_is_a_tag_where_it_is_named_and_sampled() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    db, statements = sent(query_tags=["traceparent"])
    other, untraced = sent(query_tags=["application"], application_name="x")

    def ask() -> None:
        for each in (db, other):
            with each.session() as session:
                session.execute(text("SELECT 1"))

    with db, other:
        with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("sampled") as span:
            ask()
        with TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("t").start_as_current_span("not"):
            ask()
        ask()
    context = span.get_span_context()
    traced = f"SELECT 1 /*traceparent='00-{context.trace_id:032x}-{context.span_id:016x}-01'*/"
    assert statements == [traced, "SELECT 1", "SELECT 1"]
    assert untraced == ["SELECT 1 /*application='x'*/"] * 3


# Frameworks


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_fastapi_says_the_route(asynchronous: bool) -> None:
    pytest.importorskip("fastapi")
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from dbconfig.integrations.fastapi import install

    db, statements = sent(query_tags=["route"])
    app = FastAPI()
    install(app, registry=db)

    def ask(number: int) -> int:
        with db.session() as session:
            return int(session.execute(text("SELECT 1")).scalar_one())

    async def ask_in_loop(number: int) -> int:
        return ask(number)

    app.get("/heroes/{number}")(ask_in_loop if asynchronous else ask)
    with db, TestClient(app) as client:
        assert client.get("/heroes/7").json() == 1
    assert statements == ["SELECT 1 /*route='%2Fheroes%2F%7Bnumber%7D'*/"]


def test_flask_says_the_route() -> None:
    pytest.importorskip("flask")
    from flask import Flask

    from dbconfig.integrations.flask import DBConfig

    db, statements = sent(query_tags=["route"])
    app, extension = Flask("shop"), DBConfig()
    extension.init_app(app, db)

    @app.get("/heroes/<int:number>")
    def hero(number: int) -> str:
        return str(extension.session.execute(text("SELECT 1")).scalar_one())

    with db:
        assert app.test_client().get("/heroes/7").text == "1"
        with db.session() as session:
            session.execute(text("SELECT 2"))
    assert statements == ["SELECT 1 /*route='%2Fheroes%2F%3Cint%3Anumber%3E'*/", "SELECT 2"]


def test_celery_says_the_task() -> None:
    pytest.importorskip("celery")
    from celery import Celery

    from dbconfig.integrations.celery import install

    db, statements = sent(query_tags=["task"])
    install()
    app = Celery("jobs", broker="memory://", backend="cache+memory://")

    @app.task(name="jobs.count")
    def count() -> int:
        with db.session() as session:
            return int(session.execute(text("SELECT 1")).scalar_one())

    with db:
        assert count.apply().get() == 1
        with db.session() as session:
            session.execute(text("SELECT 2"))
    assert statements == ["SELECT 1 /*task='jobs.count'*/", "SELECT 2"]
