"""The examples run as their first lines say, on every database that they name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.interpreter import run_python
from tests.support.postgresql import PostgreSQLServer
from tests.support.servers import Server

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the examples need: they write their data beside their configuration."""
    for folder in ("config", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    return tmp_path


def run(
    script: Path, *arguments: str, folder: Path, fresh: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script; `fresh`: in an interpreter that has imported nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DBCONFIG_", "DATABASE_"))}
    kept.pop("ENVIRONMENT", None)
    environ = {**kept, **variables}
    command = ["-W", "error", script, *arguments]
    if not fresh:
        return run_python(command, folder=folder, environ=environ, timeout=300)
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environ, capture_output=True, text=True, timeout=300
    )


def test_the_quickstart_prints_its_heroes_from_two_working_directories(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = project / "examples/quickstart/main.py"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    first = run(script, folder=project, fresh=True, DBCONFIG_ECHO="false")
    second = run(script, folder=elsewhere, DBCONFIG_ECHO="false")
    assert first.stderr == second.stderr == ""
    assert first.stdout.splitlines() == [
        "profile development (ENVIRONMENT is not set: development), "
        f"database sqlite+pysqlite: {project}/data/development.db",
        "created tables: team, hero",
        "  1: Deadpond of the Preventers",
        "  2: Rusty-Man of the Preventers",
    ]
    assert second.stdout.splitlines()[1:] == [
        "created tables: none (all exist)",
        "  1: Deadpond of the Preventers",
        "  2: Rusty-Man of the Preventers",
        "  3: Deadpond of the Preventers",
        "  4: Rusty-Man of the Preventers",
    ]
    assert list(elsewhere.iterdir()) == []


def test_the_quickstart_runs_on_a_server_without_editing_a_file(project: Path, server: Server) -> None:
    for drivername in (
        ("postgresql", "postgres") if server.kind == "postgresql" else ("mysql", "mysql+pymysql", "mariadb")
    ):
        done = run(
            project / "examples/quickstart/main.py",
            folder=project,
            ENVIRONMENT="production",
            DATABASE_URL=server.url(drivername),
        )
        assert done.stderr == ""
        assert done.stdout.startswith("profile production (ENVIRONMENT, environment), database ")
        assert "Rusty-Man of the Preventers" in done.stdout
        assert server.password not in done.stdout


def test_the_same_models_run_on_three_databases_by_environment_only(
    project: Path, postgresql: Server, mariadb: Server
) -> None:
    script = project / "examples/three_databases/main.py"
    urls = {"POSTGRES_URL": postgresql.url(), "MARIADB_URL": mariadb.url()}
    for profile, driver in {
        "development": "sqlite+pysqlite",
        "postgresql": "postgresql+psycopg2",
        "mariadb": "mysql+pymysql",
    }.items():
        done = run(script, folder=project, ENVIRONMENT=profile, **urls)
        assert done.stderr == ""
        assert done.stdout == f"{profile}: 2 orders of Ada, Zoë 🦊, 19.75 in all, on {driver}\n"


def test_the_shards_run_on_three_files_and_on_two_databases_of_postgresql(
    project: Path, postgresql: PostgreSQLServer
) -> None:
    script = project / "examples/shards/main.py"
    chosen = "'orders' is divided into shards, and none was chosen"
    done = run(script, folder=project)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["eu: 2, us: 1, asia: 0", chosen]
    other = postgresql.create_database()
    try:
        urls = {"EU_URL": postgresql.url(), "US_URL": postgresql.url(database=other)}
        done = run(script, folder=project, ENVIRONMENT="postgresql", **urls)
        assert done.stderr == ""
        assert done.stdout.splitlines() == ["eu: 2, us: 1", chosen]
    finally:
        postgresql.drop_database(other)


def test_an_example_without_its_variable_says_which_and_where(project: Path) -> None:
    done = run(project / "examples/three_databases/main.py", folder=project, ENVIRONMENT="postgresql")
    assert done.returncode == 1
    assert "POSTGRES_URL is not set" in done.stderr
    assert "examples/three_databases/config/postgresql.yaml:1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_web_application_answers(project: Path) -> None:
    script = project / "check.py"
    script.write_text(
        "import json, sys\n"
        "sys.path.insert(0, 'examples/web_app')\n"
        "from fastapi.testclient import TestClient\n"
        "import main\n"
        "with TestClient(main.app) as client:\n"
        "    created = client.post('/heroes', json={'name': 'Deadpond'})\n"
        "    heroes = client.get('/heroes').json()\n"
        "    print(json.dumps([created.status_code, heroes, client.get('/heroes/7').status_code], sort_keys=True))\n"
    )
    shutil.move(project / "config", project / "unused")
    shutil.copytree(project / "examples/web_app/config", project / "config")
    done = run(script, folder=project, ENVIRONMENT="testing")
    assert done.stderr == ""
    assert json.loads(done.stdout) == [201, [{"id": 1, "name": "Deadpond"}], 404]


def test_two_databases_in_one_session(project: Path) -> None:
    script = project / "examples/two_databases/main.py"
    for number in (1, 2):
        done = run(script, "sqlite", folder=project)
        assert done.stderr == ""
        assert done.stdout == f"{number} orders on sqlite+pysqlite\n{number * 2} page views on sqlite+pysqlite\n"


def test_two_databases_start_servers_of_their_own(project: Path, server: Server) -> None:
    done = run(project / "examples/two_databases/main.py", folder=project, PYTHONPATH=str(ROOT))
    assert done.stderr == ""
    assert done.stdout == "1 orders on postgresql+psycopg2\n2 page views on mysql+pymysql\n"


def test_reads_go_to_the_replicas_and_see_what_was_written(project: Path, postgresql: Server) -> None:
    script = project / "examples/read_replicas/main.py"
    done = run(script, "sqlite", folder=project)
    assert done.stderr == ""
    assert done.stdout == "wrote 50 notes on sqlite+pysqlite, and saw 50 of them right after\n"
    done = run(script, folder=project, PYTHONPATH=str(ROOT))
    assert done.stderr == ""
    first, *servers = done.stdout.splitlines()
    assert first == "wrote 50 notes on postgresql+psycopg2, and saw 50 of them right after"
    assert sum(int(line.split()[-2]) for line in servers) == 50
    off = run(script, folder=project, PYTHONPATH=str(ROOT), DBCONFIG_REPLICAS="off")
    assert off.stdout.splitlines() == [first]


def alembic(folder: Path, *arguments: str, **variables: str) -> str:
    """Run Alembic's command in the folder of an example."""
    done = run(Path(sys.executable).with_name("alembic"), *arguments, folder=folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_migrations_bring_a_database_up_to_its_models(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("alembic")
    script = project / "examples/alembic_app/main.py"
    first = run(script, folder=tmp_path_factory.mktemp("elsewhere"))
    assert (first.stdout, first.stderr) == ("1: The Dispossessed, 387 pages\non sqlite+pysqlite\n", "")
    second = run(script, folder=project / "examples/alembic_app")
    assert second.stdout.splitlines()[1] == "2: The Dispossessed, 387 pages"


@pytest.mark.parametrize(
    "system", ["sqlite", *(pytest.param(each, marks=pytest.mark.server) for each in ("postgresql", "mariadb"))]
)
def test_each_revision_is_what_the_models_say_and_can_be_taken_back(
    project: Path, system: str, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("alembic")
    folder = project / "examples/alembic_app"
    variables = {"ENVIRONMENT": "development"}
    if system != "sqlite":
        name = {"postgresql": "POSTGRES_URL", "mariadb": "MARIADB_URL"}[system]
        variables = {"ENVIRONMENT": system, name: request.getfixturevalue(system).url()}
    alembic(folder, "upgrade", "0001", **variables)
    done = run(folder / "main.py", folder=folder, **variables)
    assert done.stderr == ""
    assert done.stdout.startswith("1: The Dispossessed, 387 pages\n")
    assert "No new upgrade operations detected" in alembic(folder, "check", **variables)
    alembic(folder, "downgrade", "base", **variables)
    assert run(folder / "main.py", folder=folder, **variables).stdout == done.stdout
