"""Alembic with an `env.py` of one call: every profile, sync and async, offline and online, many at once."""

import asyncio
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

pytest.importorskip("alembic")

from alembic import command
from alembic.config import Config

from dbconfig import ConfigError, Profile, Registry
from dbconfig.integrations.alembic import upgrade
from tests.integrations.conftest import SYSTEMS
from tests.support.drivers import SERVED, params, schemes
from tests.support.interpreter import started_python
from tests.support.processes import wait_until

MODELS = """
from sqlmodel import Field, SQLModel
from dbconfig.integrations.alembic import NAMING_CONVENTION
SQLModel.metadata.naming_convention = NAMING_CONVENTION
class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50, unique=True)
"""
TWO = """
from sqlmodel import Field, MetaData, SQLModel
class Main(SQLModel):
    metadata = MetaData()
class Facts(SQLModel):
    metadata = MetaData()
class Team(Main, table=True):
    id: int | None = Field(default=None, primary_key=True)
class Visit(Facts, table=True):
    id: int | None = Field(default=None, primary_key=True)
"""


@pytest.fixture
def migrated(project):
    """A project whose first revision is written from its models."""

    def make(url: str, models: str = MODELS, more: str = "", env: str | None = None):
        project.environ.update(ENVIRONMENT="testing", PYTHONPATH=str(project.path))
        project.write(config__testing_yaml=f"url: '{url}'\n{more}", models_py=models)
        done(project.run("dbconfig", "init", "--alembic", "--models", "models"))
        if env is not None:
            (project.path / "migrations/env.py").write_text(env)
        done(project.run("alembic", "revision", "--autogenerate", "-m", "first"))
        return project

    return make


def done(process):
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


@pytest.mark.parametrize(
    ("system", "drivername"),
    [
        ("sqlite-file", None),
        ("postgresql", None),
        ("postgresql", "postgresql+asyncpg"),
        ("postgresql", "postgresql+psycopg"),
        ("mariadb", None),
        ("mariadb", "mysql+asyncmy"),
    ],
)
def test_up_check_down_and_sql_without_a_server(migrated, url_of, system, drivername, request):
    project = migrated(url_of(system, drivername))
    text = next((project.path / "migrations/versions").glob("*.py")).read_text()
    assert "import sqlmodel" in text
    assert "uq_team_name" in text
    done(project.run("alembic", "upgrade", "head"))
    assert "No new upgrade operations detected" in done(project.run("alembic", "check"))
    done(project.run("alembic", "downgrade", "base"))
    if system != "sqlite-file":
        request.getfixturevalue(system).stop()
    assert "CREATE TABLE team" in done(project.run("alembic", "upgrade", "head", "--sql"))


def test_a_password_with_a_percent_sign(migrated, postgresql):
    postgresql.create_user("guest", "p%40ss%/@:w")
    postgresql.sql(f"GRANT ALL ON DATABASE {postgresql.database} TO guest")
    project = migrated(postgresql.url(user="guest", password="p%40ss%/@:w"))
    output = done(project.run("alembic", "upgrade", "head"))
    assert "p%40ss" not in output


def test_the_applications_loggers_stay_enabled_and_no_connection_stays_open(migrated, url_of, postgresql):
    project = migrated(url_of("postgresql"))
    project.write(
        main_py="""
import logging
from alembic import command
from alembic.config import Config
logger = logging.getLogger("shop"); logger.warning("before")
command.upgrade(Config("alembic.ini"), "head")
assert not logger.disabled
"""
    )
    done(project.run("main"))
    wait_until(lambda: postgresql.connections() == [], "the end of the connections")


IN_A_PROGRAM = {
    "command.upgrade": 'command.upgrade(Config("alembic.ini"), "head")',
    "upgrade": "upgrade(db.engine())",
    "main": 'main(argv=["upgrade", "head"])',
}


@pytest.mark.parametrize("way", IN_A_PROGRAM)
def test_a_program_that_migrates_keeps_its_logging(migrated, url_of, way):
    project = migrated(url_of("sqlite-file"))
    project.write(
        main_py=f"""
import io, logging
from alembic import command
from alembic.config import Config, main
from dbconfig import db
from dbconfig.integrations.alembic import upgrade
log = io.StringIO()
logging.basicConfig(level=logging.INFO, stream=log)
handlers = list(logging.getLogger().handlers)
{IN_A_PROGRAM[way]}
logging.getLogger("shop").info("after")
assert logging.getLogger().handlers == handlers
assert logging.getLogger().level == logging.INFO
assert log.getvalue().count("Running upgrade") == 1, log.getvalue()
assert "INFO:shop:after" in log.getvalue()
"""
    )
    assert "Running upgrade" not in done(project.run("main"))
    assert "INFO  [alembic.runtime.migration] Context impl" in done(project.run("alembic", "upgrade", "head"))


INSIDE_A_LOOP = {
    "command.upgrade": 'command.upgrade(Config("alembic.ini"), "head")',
    "command.upgrade in a thread": 'await asyncio.to_thread(command.upgrade, Config("alembic.ini"), "head")',
    "upgrade": "upgrade(db.async_engine())",
    "upgrade in a thread": "await asyncio.to_thread(upgrade, db.async_engine())",
}


@pytest.mark.parametrize(
    ("system", "drivername", "way"),
    [
        *(("sqlite-file", "sqlite+aiosqlite", way) for way in INSIDE_A_LOOP),
        ("postgresql", "postgresql+asyncpg", "upgrade"),
        ("postgresql", "postgresql+psycopg", "upgrade"),
        ("mariadb", "mysql+asyncmy", "upgrade"),
        ("mariadb", "mysql+aiomysql", "upgrade"),
    ],
)
def test_an_application_migrates_inside_its_loop(migrated, url_of, system, drivername, way):
    url = "sqlite+aiosqlite:///data/app.db" if system == "sqlite-file" else url_of(system, drivername)
    project = migrated(url)
    project.write(
        main_py=f"""
import asyncio
from alembic import command
from alembic.config import Config
from dbconfig import db
from dbconfig.integrations.alembic import upgrade
from models import Team
async def main():
    async with db.async_transaction() as session:  # the loop has connections of its own already
        await session.connection()
    {INSIDE_A_LOOP[way]}
    async with db.async_transaction() as session:
        session.add(Team(name="a"))
    await db.async_dispose()
    print("migrated")
asyncio.run(main())
"""
    )
    assert "migrated" in done(project.run("main")).splitlines()


def test_the_ini_is_found_in_the_project_from_any_folder(migrated, url_of, tmp_path_factory):
    project = migrated(url_of("sqlite-file"))
    project.write(
        main_py="""
from dbconfig import db
from dbconfig.integrations.alembic import upgrade
upgrade(db.engine())
print(db.engine().url.database)
"""
    )
    script = str(project.path / "main.py")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environ = {**os.environ, "ENVIRONMENT": "testing"}
    run = subprocess.run([sys.executable, script], cwd=elsewhere, env=environ, capture_output=True, text=True)
    assert done(run).splitlines()[-1] == str(project.path / "data/app.db")


def test_an_ini_that_is_not_there_is_an_error_that_names_the_places(monkeypatch, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/testing.yaml").write_text("url: 'sqlite://'\n")
    monkeypatch.chdir(tmp_path)
    with (
        Registry.from_profile(Profile(name="tests", url="sqlite://")) as registry,
        pytest.raises(ConfigError, match=r"'alembic.ini' was not found(.|\n)*dbconfig init --alembic"),
    ):
        upgrade(registry.engine())


@pytest.mark.parametrize("system", ["sqlite-file", "postgresql", "mariadb"])
def test_four_containers_upgrade_at_once(migrated, url_of, system):
    project = migrated(url_of(system))
    revision = next((project.path / "migrations/versions").glob("*.py"))
    revision.write_text(revision.read_text().replace("    op.", "    import time; time.sleep(0.3)\n    op.", 1))
    environ = {**os.environ, **project.environ}
    command = ["-m", "alembic", "upgrade", "head"]
    with ExitStack() as stack:
        starting = [started_python(command, folder=project.path, environ=environ) for _ in range(4)]
        running = [stack.enter_context(each) for each in starting]
        outputs = ["".join(each.communicate(timeout=120)) for each in running]
    assert [each.returncode for each in running] == [0] * 4, "\n".join(outputs)
    assert sum("Running upgrade" in output for output in outputs) == 1


def test_two_databases_have_their_own_functions_and_versions(migrated, tmp_path):
    env = """
from models import Facts, Main
from dbconfig.integrations.alembic import run_migrations
run_migrations({"default": Main.metadata, "facts": Facts.metadata})
"""
    more = "databases:\n  facts:\n    url: sqlite:///data/facts.db\n"
    project = migrated("sqlite:///data/main.db", TWO, more, env)
    text = next((project.path / "migrations/versions").glob("*.py")).read_text()
    assert text.index("def upgrade_default") < text.index("'team'") < text.index("def upgrade_facts")
    done(project.run("alembic", "upgrade", "head"))
    import sqlite3

    for name, table in (("main", "team"), ("facts", "visit")):
        connection = sqlite3.connect(tmp_path / f"data/{name}.db")
        found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        connection.close()
        assert found == {"alembic_version", table}
    sql = done(project.run("alembic", "-x", "database=facts", "upgrade", "head", "--sql"))
    assert "CREATE TABLE visit" in sql
    assert "CREATE TABLE team" not in sql
    failed = project.run("alembic", "-x", "database=fact", "upgrade", "head")
    assert "env.py has no database 'fact'" in failed.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_migrations_within_the_tests_of_the_plugin(migrated, url_of, system):
    project = migrated(url_of(system))
    project.environ.pop("ENVIRONMENT")
    (project.path / "conftest.py").write_text(
        """
import pytest
from dbconfig.integrations.alembic import upgrade
@pytest.fixture(scope="session")
def db_setup():
    return upgrade
"""
    )
    project.write(
        pytest_ini="[pytest]\ndb_profile = testing\nfilterwarnings = error\n",
        test_suite_py="""
import pytest
from models import Team
@pytest.mark.parametrize("round", range(2))
@pytest.mark.db(commit=True)
def test_it(db_session_committed, round):
    db_session_committed.add(Team(name="a"))
    db_session_committed.commit()
""",
    )
    finished = project.pytest()
    assert "2 passed" in finished.stdout, finished.stdout + finished.stderr


# SQLite: a batch migration makes a table anew and drops the old one, to which the rows of other tables refer.

BATCH = {
    "one": """
    op.create_table("team", sa.Column("id", sa.Integer, primary_key=True), sa.Column("old", sa.Integer))
    team = sa.ForeignKey("team.id", ondelete="CASCADE")
    op.create_table("hero", sa.Column("id", sa.Integer, primary_key=True), sa.Column("team_id", sa.Integer, team))
    op.execute("INSERT INTO team VALUES (1, 1)")
    op.execute("INSERT INTO hero VALUES (1, 1), (2, 1)")
""",
    "two": """
    with op.batch_alter_table("team") as batch:
        batch.drop_column("old")
""",
}
STOCK_ENV = """
from alembic import context
connection = context.config.attributes["connection"]
context.configure(connection=connection, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
"""
CONNECTING_ENV = """
from alembic import context
engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(connection=connection, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
"""
OUR_ENV = """
from dbconfig.integrations.alembic import run_migrations
from sqlmodel import SQLModel
run_migrations(SQLModel.metadata)
"""


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """Write two revisions, the second of which drops a column of the parent table."""

    def make(env, **more):
        versions = tmp_path / "migrations/versions"
        versions.mkdir(parents=True)
        (versions.parent / "env.py").write_text(env)
        before = None
        for name, body in {**BATCH, **more}.items():
            head = f"import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = {name!r}, {before!r}\n"
            (versions / f"{name}.py").write_text(f"{head}def upgrade():{body}")
            before = name
        (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/migrations\n")
        return Config(str(tmp_path / "alembic.ini"))

    return make


@pytest.fixture(params=["sync", "async"])
def registry(request, tmp_path):
    driver = "sqlite" if request.param == "sync" else "sqlite+aiosqlite"
    with Registry.from_profile(Profile(name="tests", url=f"{driver}:///{tmp_path}/app.db")) as made:
        yield made


def on_own_connection(registry, work):
    """Do something with a connection of the registry's engine, in a transaction."""
    if not registry.profile.databases["default"].only_asynchronous():
        with registry.engine().begin() as connection:
            return work(connection)

    async def run():
        async with registry.async_engine().begin() as connection:
            return await connection.run_sync(work)

    return asyncio.run(run())


def heroes(connection):
    return connection.scalar(text("SELECT count(*) FROM hero"))


def old(connection):
    return [row.name for row in connection.execute(text("PRAGMA table_info(team)"))].count("old")


def test_a_batch_migration_on_the_programs_connection_keeps_the_children(batches, registry):
    config = batches(OUR_ENV)
    for revision in BATCH:

        def work(connection, revision=revision):
            config.attributes["connection"] = connection
            command.upgrade(config, revision)

        on_own_connection(registry, work)
    assert on_own_connection(registry, lambda connection: (heroes(connection), old(connection))) == (2, 0)
    # The next one who takes the connection has foreign keys again.
    assert on_own_connection(registry, lambda connection: connection.scalar(text("PRAGMA foreign_keys"))) == 1


def test_a_stock_env_on_our_engine_loses_no_row(batches, registry):
    config = batches(STOCK_ENV)

    def work(connection):
        config.attributes["connection"] = connection
        command.upgrade(config, "two")

    with pytest.raises(IntegrityError, match="hero"):
        on_own_connection(registry, work)

    def again(connection):
        connection.execute(text("PRAGMA foreign_keys = OFF"))
        work(connection)

    on_own_connection(registry, again)
    assert on_own_connection(registry, lambda connection: (heroes(connection), old(connection))) == (2, 0)


def enforced(connection):
    return connection.scalar(text("PRAGMA foreign_keys"))


@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_stock_env_makes_a_parent_anew_with_foreign_keys_on_before_and_after(batches, tmp_path, place):
    config = batches(CONNECTING_ENV)
    url = f"sqlite:///{tmp_path}/app.db" if place == "file" else "sqlite://"
    with Registry.from_profile(Profile(name="tests", url=url)) as db:
        config.attributes["engine"] = db.engine()
        command.upgrade(config, "head")
        with db.engine().begin() as connection:
            assert (heroes(connection), old(connection), enforced(connection)) == (2, 0, 1)
        with db.engine().begin() as connection:
            connection.execute(text("DELETE FROM team"))
            assert heroes(connection) == 0  # they go with their team again


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            """
    with op.batch_alter_table("team") as batch:
        batch.drop_column("old")
    op.drop_table("team")
""",
            "DROP TABLE team would delete or change rows of hero",
        ),
        (
            """
    op.execute("CREATE TABLE _alembic_tmp_team (id INTEGER PRIMARY KEY)")
    op.execute("DROP TABLE team")
    op.execute("ALTER TABLE _alembic_tmp_team RENAME TO team")
""",
            "after the batch migration of team, 2 rows of hero refer to no row of team",
        ),
        (
            """
    op.execute("UPDATE team SET old = 2")
    with op.batch_alter_table("team") as batch:
        batch.drop_column("old")
""",
            "DROP TABLE team would delete or change rows of hero",  # too late: the transaction has written
        ),
    ],
)
def test_a_migration_that_would_lose_rows_is_refused(batches, tmp_path, kind, body, words):
    config = batches(STOCK_ENV, two=body)
    driver = "sqlite" if kind == "sync" else "sqlite+aiosqlite"
    with Registry.from_profile(Profile(name="tests", url=f"{driver}:///{tmp_path}/app.db")) as db:

        def work(connection, revision):
            config.attributes["connection"] = connection
            command.upgrade(config, revision)

        on_own_connection(db, lambda connection: work(connection, "one"))
        with pytest.raises(IntegrityError, match=words):
            on_own_connection(db, lambda connection: work(connection, "two"))
        look = on_own_connection(db, lambda connection: (heroes(connection), old(connection), enforced(connection)))
        assert look == (2, 1, 1)


def test_upgrade_keeps_the_children(batches, registry):
    batches(OUR_ENV)
    ini = str(Path(registry.profile.databases["default"].path).with_name("alembic.ini"))

    async def in_a_loop():
        upgrade(registry.async_engine(), ini=ini)

    if registry.profile.databases["default"].only_asynchronous():
        asyncio.run(in_a_loop())
    else:
        upgrade(registry.engine(), ini=ini)
    assert on_own_connection(registry, lambda connection: (heroes(connection), old(connection))) == (2, 0)
    assert on_own_connection(registry, lambda connection: connection.scalar(text("PRAGMA foreign_keys"))) == 1


def test_the_shards_of_a_database_are_migrated_one_after_another_and_each_says_where_it_is(migrated, tmp_path):
    project = migrated(
        f"sqlite:///{tmp_path}/whole.db", more="shards: {eu: {database: eu.db}, us: {database: us.db}}\n"
    )
    done(project.run("alembic", "-x", "database=default/eu", "upgrade", "head"))
    project.write(
        main_py="""
from dbconfig.integrations.alembic import revisions
print([bool(each) for each in revisions().values()], *revisions())
"""
    )
    assert done(project.run("main")).splitlines()[-1] == "[True, False] default/eu default/us"
    done(project.run("alembic", "upgrade", "head"))
    assert done(project.run("main")).splitlines()[-1] == "[True, True] default/eu default/us"
    assert "No new upgrade operations detected" in done(project.run("alembic", "check"))
    told = done(project.run("alembic", "upgrade", "head")).splitlines()
    assert [line.split()[0] for line in told if line.startswith("default/")] == ["default/eu", "default/us"]


SHARDS = "shards: {eu: {database: eu.db}, us: {database: us.db}, asia: {database: asia.db}}\n"


def revisions_of(result):
    lines = [line.split() for line in (result.stdout + result.stderr).splitlines()]
    return {words[0]: " ".join(words[1:]) for words in lines if words and words[0].startswith("default/")}


def test_shards_are_migrated_in_parallel_and_a_table_says_which_one_is_where(migrated, tmp_path):
    project = migrated(f"sqlite:///{tmp_path}/whole.db", more=SHARDS)
    up = project.run("alembic", "-x", "parallel=2", "upgrade", "head")
    found = revisions_of(up)
    assert list(found) == ["default/eu", "default/us", "default/asia"], up.stderr
    assert len(set(found.values())) == 1
    assert "(none)" not in found.values()
    down = project.run("alembic", "-x", "parallel=3", "downgrade", "-1")
    assert down.returncode == 0, down.stderr
    assert set(revisions_of(down).values()) == {"(none)"}


def test_a_shard_that_fails_does_not_stop_the_others_and_is_named(migrated, tmp_path):
    project = migrated(f"sqlite:///{tmp_path}/whole.db", more=SHARDS)
    (tmp_path / "us.db").write_text("this is not a database, but a text that is long enough for a header" * 20)
    up = project.run("alembic", "-x", "parallel=2", "upgrade", "head")
    assert up.returncode != 0
    assert "1 of 3 databases failed" in up.stdout + up.stderr
    assert "default/us: " in up.stdout + up.stderr
    found = revisions_of(up)
    assert found["default/eu"] == found["default/asia"] != "(none)"
    assert "not reached" in up.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-x", "parallel=0", "upgrade", "head"], "-x parallel=0: a number of databases at a time, at least 1"),
        (["-x", "parallel=2", "current"], "-x parallel is for alembic upgrade and alembic downgrade"),
    ],
)
def test_what_cannot_be_done_in_parallel_is_refused(migrated, tmp_path, arguments, words):
    project = migrated(f"sqlite:///{tmp_path}/whole.db", more=SHARDS)
    result = project.run("alembic", *arguments)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr


# Errors of the command


def failed(process):
    assert process.returncode == 1, process.stdout + process.stderr
    return process.stderr


@pytest.mark.parametrize("options", [(), ("--sql",)])
def test_a_database_that_does_not_exist_is_an_error_without_a_traceback(migrated, options):
    project = migrated("sqlite:///data/app.db")
    error = failed(project.run("alembic", "-x", "database=NOPE", "upgrade", "head", *options))
    assert error.startswith("error[unknown-database]: profile 'testing' has no database 'NOPE'")
    assert "Traceback" not in error


@pytest.mark.parametrize("driver", params(schemes(SERVED)))
def test_a_password_that_is_rejected_is_an_error_at_its_place_without_a_traceback(migrated, request, driver):
    server = request.getfixturevalue(driver.server)
    server.create_user("guest", "right-0ne")
    project = migrated("sqlite:///data/app.db")
    project.write(config__testing_yaml=f"url: '{server.url(driver.scheme, user='guest', password='wr0ng-one')}'\n")
    error = failed(project.run("alembic", "upgrade", "head"))
    assert "error[login-rejected]" in error
    assert "--> config/testing.yaml:1:1" in error
    assert "Traceback" not in error
    assert "wr0ng-one" not in error


def test_the_traceback_of_an_error_is_shown_where_it_is_wanted_or_a_migration_is_wrong(migrated):
    project = migrated("sqlite:///data/app.db")
    assert "Traceback" in failed(project.run("alembic", "--raiseerr", "-x", "database=NOPE", "upgrade", "head"))
    revision = next((project.path / "migrations/versions").glob("*.py"))
    revision.write_text(revision.read_text().replace("    op.", "    op.execute('SELECT * FROM nowhere')\n    op.", 1))
    error = failed(project.run("alembic", "upgrade", "head"))
    assert "Traceback" in error
    assert "no such table: nowhere" in error


def test_a_program_that_runs_the_command_gets_the_error_itself(migrated):
    project = migrated("sqlite:///data/app.db")
    project.write(
        main_py="""
from alembic.config import main
from dbconfig import ConfigError
try:
    main(argv=["-x", "database=NOPE", "upgrade", "head"])
except ConfigError as error:
    print("caught", error)
"""
    )
    assert "caught error[unknown-database]" in done(project.run("main"))
