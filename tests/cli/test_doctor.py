"""`dbconfig doctor`: ten lines on each database, by synchronous and asynchronous drivers, healthy and not."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import pytest

from tests.cli.conftest import Project, Result
from tests.groups import pair as pair
from tests.support.drivers import SERVED, Driver, params, schemes
from tests.support.mariadb import MariaDBServer
from tests.support.pgbouncer import pgbouncer
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQLServer, PostgreSQLStandby
from tests.support.servers import Server


def lines(result: Result) -> dict[str, str]:
    """Return what each line says, by what it is about."""
    split = (re.match(r"(\w+(?: \d+)?) {2,}(.*)", line) for line in result.out.splitlines())
    return {found[1]: found[2] for found in split if found}


def document(project: Project) -> dict[str, Any]:
    found = json.loads(project.run("doctor", "--format", "json").out)
    assert found["schema"] == "dbconfig/doctor/1"
    return dict(found["databases"]["default"], healthy=found["healthy"])


@pytest.mark.parametrize("driver", params(schemes(SERVED)))
def test_a_healthy_server_takes_ten_lines(project: Project, request: pytest.FixtureRequest, driver: Driver) -> None:
    server: Server = request.getfixturevalue(driver.server)
    project.profile(f"url: {server.url(driver.scheme)}\npool_size: 20\nmax_overflow: 40\nstatement_timeout: 7s\n")
    result = project.run("doctor")
    assert (result.code, result.err) == (0, ""), result.text
    assert len(result.out.splitlines()) <= 10
    said = lines(result)
    assert said["profile"] == "development (ENVIRONMENT is not set: development), config/development.yaml"
    assert said["database"].endswith("(config/development.yaml:1)")
    assert f"app:***@127.0.0.1:{server.port}/" in said["database"]
    role = "primary" if driver.server == "postgresql" else "accepts writes"
    version = "PostgreSQL" if driver.server == "postgresql" else "MariaDB"
    assert re.fullmatch(rf"{version} \d[^,]*, {role}; answers in \d+\.\d ms", said["server"])
    assert re.fullmatch(
        r"20 \+ 40 in each process; the server has \d+ free of \d+ \(.*\), room for \d such pools?", said["pool"]
    )
    assert said["TLS"] == "no TLS; no sslmode in the profile"
    assert re.search(r"statement_time(out=7s|=7\.0)", said["session"])
    assert result.out.rstrip().endswith("\nhealthy")
    assert server.password not in result.text
    found = document(project)
    assert (found["reachable"], found["healthy"], found["pool"]["size"]) == (True, True, 20)
    assert 0 < found["pool"]["server_free"] <= found["pool"]["server_max"]
    assert server.password not in json.dumps(found)


@pytest.mark.parametrize("driver", params(schemes(SERVED)))
def test_a_server_that_is_down_and_a_wrong_password_are_errors(
    project: Project, request: pytest.FixtureRequest, driver: Driver
) -> None:
    server: Server = request.getfixturevalue(driver.server)
    for url, slug in (
        (server.url(driver.scheme, port=free_port()), "refused"),
        (server.url(driver.scheme, password="wrong"), "login-rejected"),
    ):
        project.profile(f"url: {url}\n")
        result = project.run("doctor")
        assert result.code == 1
        said = lines(result)
        assert said["server"].startswith("cannot be used: ")
        assert said["server"].endswith(f"[{slug}]")
        assert said["pool"] == "5 + 10 in each process"
        assert "1 error: see below" in result.out
        assert f"error[{slug}]" in result.err
        assert "wrong" not in result.out
        assert document(project)["problems"][0]["slug"] == slug


@pytest.mark.server
def test_a_server_without_free_connections_is_an_error(project: Project, postgresql: PostgreSQLServer) -> None:
    project.profile(f"url: {postgresql.url()}\npool_size: 400\n")
    result = project.run("doctor")
    assert result.code == 1
    assert "room for 0 such pools" in lines(result)["pool"]
    assert "error[pool-over-budget]" in result.err


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "postgresql+asyncpg"])
def test_a_standby_is_up_to_date_and_a_paused_one_lags(
    project: Project, postgresql: PostgreSQLServer, standby: PostgreSQLStandby, scheme: str
) -> None:
    dead = free_port()
    project.profile(f"url: {postgresql.url(scheme)}\nreplicas: [{{port: {standby.port}}}]\n")
    standby.catch_up()
    result = project.run("doctor")
    assert (result.code, result.err) == (0, "")
    assert re.search(r"/\w+: standby, up to date; answers in", lines(result)["replica 1"])
    assert document(project)["replicas"][0]["lag"]["current"] is True

    standby.sql("SELECT pg_wal_replay_pause()")
    postgresql.sql("CREATE TABLE later_than_the_pause (x int)")
    try:
        project.profile(f"url: {postgresql.url(scheme)}\nreplicas: [{{port: {standby.port}}}, {{port: {dead}}}]\n")
        result = project.run("doctor")
        assert result.code == 1  # for the replica that is down
        assert re.search(r": standby, (behind by \d+\.\d s|more than 1 s behind);", lines(result)["replica 1"])
        assert lines(result)["replica 2"].endswith(f"nothing listens on 127.0.0.1:{dead} [refused]")
        assert "(replicas.1.port)" in result.err
        lag = document(project)["replicas"][0]["lag"]
        assert lag["current"] is False
    finally:
        standby.sql("SELECT pg_wal_replay_resume()")
        postgresql.sql("DROP TABLE later_than_the_pause")


@pytest.mark.server
def test_a_promoted_standby_has_another_history(
    project: Project, postgresql: PostgreSQLServer, standby: PostgreSQLStandby
) -> None:
    project.profile(f"url: {postgresql.url()}\nreplicas: [{{port: {standby.port}}}]\n")
    standby.promote()
    standby.sql("SELECT pg_switch_wal()")
    assert "it was promoted" in lines(project.run("doctor"))["replica 1"]


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["mysql+pymysql", "mysql+asyncmy"])
def test_a_replica_of_mariadb(project: Project, pair: tuple[MariaDBServer, MariaDBServer], scheme: str) -> None:
    primary, replica = pair
    project.profile(f"url: {primary.url(scheme)}\nreplicas: [{{port: {replica.port}}}]\n")
    replica.catch_up()
    assert ": read-only, up to date;" in lines(project.run("doctor"))["replica 1"]
    replica.sql("STOP REPLICA SQL_THREAD")
    primary.sql("CREATE OR REPLACE TABLE later_than_the_pause (x int)")
    try:
        result = project.run("doctor")
        assert result.code == 0
        assert ": read-only, more than 1 s behind;" in lines(result)["replica 1"]
        assert result.out.rstrip().splitlines()[-1] == "healthy, but replica 1 is behind"
    finally:
        replica.sql("START REPLICA SQL_THREAD")


@pytest.mark.server
def test_a_url_that_leads_to_a_standby_is_an_error(project: Project, standby: PostgreSQLStandby) -> None:
    project.profile(f"url: {standby.url()}\nreplicas: [{{}}]\n")
    result = project.run("doctor")
    assert result.code == 1
    assert ", standby;" in lines(result)["server"]
    assert "lag unknown: the primary does not report a position" in lines(result)["replica 1"]
    assert "error[read-only]" in result.err


@pytest.mark.server
def test_a_pooler_is_seen(project: Project, postgresql: PostgreSQLServer) -> None:
    with pgbouncer(postgresql) as pooler:
        project.profile(f"url: {pooler.url()}\n")
        result = project.run("doctor")
        assert lines(result)["pooler"] == "PgBouncer or a similar pooler, not declared in the profile"
        assert lines(result)["warning"].startswith("pooler-undeclared: ")
        project.profile(f"url: {pooler.url()}\npgbouncer: true\n")
        result = project.run("doctor")
        assert lines(result)["pooler"] == "PgBouncer or a similar pooler, declared by `pgbouncer: true`"
    assert result.code == 0


@pytest.mark.server
def test_tls_is_shown_with_what_the_profile_asks_for(project: Project, tls_postgresql: PostgreSQLServer) -> None:
    root = f"sslmode: verify-full\nsslrootcert: {tls_postgresql.certificate}\n"
    project.profile(f"url: {tls_postgresql.url()}\n{root}")
    result = project.run("doctor")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r"TLSv1\.\d, \S+; sslmode verify-full", lines(result)["TLS"])


def _revisions(project: Project, *names: str) -> None:
    project.write("alembic.ini", "[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n")
    before: str | None = None
    for name in names:
        text = f"revision = {name!r}\ndown_revision = {before!r}\n"
        project.write(f"migrations/versions/{name}.py", text)
        before = name


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_the_revision_stands_beside_the_head(project: Project, driver: str) -> None:
    pytest.importorskip("alembic")
    project.profile(f"url: {driver}:///app.db\n")
    assert "migrations" not in lines(project.run("doctor"))
    _revisions(project, "one", "two")
    pending = project.run("doctor")
    assert lines(pending)["migrations"] == "none applied; head is two: run `alembic upgrade head`"
    assert (pending.code, pending.out.splitlines()[-1]) == (0, "healthy, but migrations are pending")
    project.write("models_of_doctor.py", "from sqlalchemy import Column, MetaData, String, Table\n"
        "metadata = MetaData()\nTable('alembic_version', metadata, Column('version_num', String))\n")  # fmt: skip
    project.run("create-tables", "models_of_doctor:metadata")
    connection = sqlite3.connect(project.folder / "app.db")
    for applied, said in (("one", "at one; head is two: run `alembic upgrade head`"), ("two", "at two (head)")):
        connection.execute("DELETE FROM alembic_version")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (applied,))
        connection.commit()
        assert lines(project.run("doctor"))["migrations"] == said
        assert document(project)["migrations"] == {"current": [applied], "heads": ["two"]}
    connection.close()
    project.write("migrations/versions/three.py", "raise RuntimeError('broken revision')\n")
    result = project.run("doctor")
    assert result.code == 0
    assert lines(result)["migrations"] == "at two; heads unknown: RuntimeError: broken revision"
    (project.folder / "alembic.ini").unlink()
    assert lines(project.run("doctor"))["migrations"] == "at two; heads unknown: no alembic.ini found"


def test_each_database_is_shown_with_its_own_warnings(project: Project) -> None:
    project.profile(
        "url: 'sqlite:///:memory:'\ndatabases:\n  other: {url: 'sqlite:////proc/nowhere/b.db'}\n", "production"
    )
    result = project.run("doctor", "--profile", "production")
    assert result.code == 1
    first, second = result.out.split("\n\n")[1:3]
    assert "warning     memory-in-production: " in first
    assert "default: sqlite:///:memory:" in first
    assert "warning" not in second
    assert "cannot be used: " in second
    found = json.loads(project.run("doctor", "--profile", "production", "--format", "json").out)
    assert [each["slug"] for each in found["warnings"]] == ["memory-in-production"]
    assert found["healthy"] is False
    alone = json.loads(project.run("doctor", "production", "--database", "other", "--format", "json").out)
    assert set(alone["databases"]) == {"other"}


def test_a_warning_about_a_file_is_shown_whatever_the_databases_are_called(project: Project) -> None:
    path = project.write("config/development.yaml", "databases: {one: {url: 'sqlite://'}, two: {url: 'sqlite://'}}\n")
    path.chmod(0o666)
    for arguments in ([], ["--database", "two"]):
        assert "file-writable" in project.run("doctor", *arguments).out
        found = json.loads(project.run("doctor", *arguments, "--format", "json").out)
        assert [each["slug"] for each in found["warnings"]] == ["file-writable"]
