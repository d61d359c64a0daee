"""`dbconfig init`: what it writes, and what it refuses."""

import os
import subprocess

import pytest

from dbconfig import load
from tests.cli.conftest import Project
from tests.support.interpreter import run_python

FILES = {"default.yaml", "development.yaml", "testing.yaml", "production.yaml", "schema.json"}


def test_it_writes_what_works_at_once(project: Project) -> None:
    result = project.run("init")
    assert (result.code, result.err) == (0, "")
    assert {path.name for path in (project.folder / "config").iterdir()} == FILES
    assert (project.folder / ".gitignore").read_text() == ".env\n/data/\n"
    assert project.run("validate", "--all", "--strict").code == 0
    assert project.run("check").code == 0
    assert "next: dbconfig check" in result.out


def test_nothing_is_overwritten(project: Project) -> None:
    project.profile("url: sqlite:///mine.db\n", "production")
    result = project.run("init")
    assert result.code == 2
    assert "config/production.yaml" in result.err
    assert [path.name for path in (project.folder / "config").iterdir()] == ["production.yaml"]
    assert not (project.folder / ".gitignore").exists()


def test_a_gitignore_keeps_what_it_has(project: Project) -> None:
    project.write(".gitignore", "*.pyc\n/.env")
    project.run("init")
    assert (project.folder / ".gitignore").read_text() == "*.pyc\n/.env\n/data/\n"


ALEMBIC = {"README", "env.py", "script.py.mako"}


@pytest.mark.parametrize(
    ("options", "folder", "module"),
    [
        (("--alembic",), "migrations", "app.models"),
        (("--alembic", "db/revisions/", "--models", "shop.tables"), "db/revisions", "shop.tables"),
    ],
)
def test_it_writes_migrations_too(project: Project, options: tuple[str, ...], folder: str, module: str) -> None:
    result = project.run("init", *options)
    assert (result.code, result.err) == (0, "")
    assert {path.name for path in (project.folder / "config").iterdir()} == FILES
    assert {path.name for path in (project.folder / folder).iterdir()} == ALEMBIC
    assert f"import {module}  #" in (project.folder / folder / "env.py").read_text()
    assert f"script_location = %(here)s/{folder}\n" in (project.folder / "alembic.ini").read_text()
    assert "next: alembic revision --autogenerate" in result.out
    # The next command would fail: the message says so beforehand.
    assert f"env.py imports {module}, which does not exist yet" in result.out
    (project.folder / "alembic.ini").unlink()
    (project.folder / folder).rename(project.folder / "elsewhere")
    project.write(f"{module.replace('.', '/')}.py", "")
    assert "does not exist yet" not in project.run("init", *options).out


@pytest.mark.parametrize(
    ("echo", "level", "printed"),
    [("false", "WARNING", 0), ("false", "INFO", 1), ("true", "WARNING", 1), ("true", "INFO", 1)],
)
def test_a_migration_prints_its_statements_if_asked_to_and_only_once(
    project: Project, echo: str, level: str, printed: int
) -> None:
    project.write("app/__init__.py", "")
    project.write("app/models.py", "from sqlmodel import SQLModel\n")
    project.run("init", "--alembic")
    profile = project.folder / "config" / "development.yaml"
    profile.write_text(f"{profile.read_text()}\n".replace("\necho: false", f"\necho: {echo}"))
    assert f"\necho: {echo}" in profile.read_text()
    ini = project.folder / "alembic.ini"
    before, logger, after = ini.read_text().partition("[logger_sqlalchemy]\nlevel = INFO")
    assert logger
    ini.write_text(before + logger.replace("INFO", level) + after)
    done = _python(project, "-m", "alembic", "upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("BEGIN (implicit)") == printed


def test_migrations_are_added_to_a_project_that_has_its_profiles(project: Project) -> None:
    project.profile("url: sqlite:///mine.db\n", "production")
    result = project.run("init", "--alembic")
    assert (result.code, result.err) == (0, "")
    assert "config/ already exists, and is left unchanged" in result.out
    assert [path.name for path in (project.folder / "config").iterdir()] == ["production.yaml"]
    again = project.run("init", "--alembic")
    assert again.code == 2
    assert "alembic.ini, migrations/README, migrations/env.py, migrations/script.py.mako" in again.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--models", "app.models"), "--models applies to migrations: add --alembic"),
        (("--alembic", "../elsewhere"), "'../elsewhere' is not a folder within the project"),
        (("--alembic", "."), "'.' is not a folder within the project"),
        (("--alembic", "100%"), "'100%' is not a folder within the project"),
        (("--alembic", "--models", "app/models.py"), "'app/models.py' is not a Python module"),
    ],
)
def test_migrations_that_cannot_be_are_refused_and_nothing_is_written(
    project: Project, options: tuple[str, ...], told: str
) -> None:
    result = project.run("init", *options)
    assert (result.code, told in result.err) == (2, True)
    assert not (project.folder / "alembic.ini").exists()
    assert not (project.folder / ".gitignore").exists()


@pytest.mark.parametrize(
    ("dotenv", "address"),
    [
        ("DATABASE_URL=postgres://app:geheim@localhost/shop\n", "postgres://app:***@localhost/shop"),
        ("SQLALCHEMY_DATABASE_URI='mysql+pymysql://app@db/shop'\n", "mysql+pymysql://app@db/shop"),
        (
            "POSTGRES_USER=app\nPOSTGRES_PASSWORD=p@ss/w%rd\nPOSTGRES_DB=shop\n",
            "postgresql://app:***@localhost:5432/shop",
        ),
        (
            "POSTGRES_USER=app\nPOSTGRES_PASSWORD=x\nPOSTGRES_SERVER=db.internal\nPOSTGRES_PORT=6000\n",
            "postgresql://app:***@db.internal:6000/postgres",
        ),
        (
            "MYSQL_USER=app\nMYSQL_PASSWORD=x\nMYSQL_DATABASE=shop\nMYSQL_ROOT_PASSWORD=y\n",
            "mysql://app:***@localhost:3306/shop",
        ),
        ("MARIADB_USER=app\nMARIADB_PASSWORD=x\nMARIADB_HOST=db\n", "mariadb://app:***@db:3306"),
        ("DATABASE_URL=psql://app@db/shop\n", "sqlite:///data/development.db"),
        ("SECRET_KEY=x\n", "sqlite:///data/development.db"),
    ],
)
def test_what_a_dotenv_says_is_used(project: Project, dotenv: str, address: str) -> None:
    project.write(".env", dotenv)
    assert project.run("init").code == 0
    profile = load("development", path=project.folder / "config", environ={})
    assert str(profile.databases["default"].address) == address
    if "p@ss" in dotenv:
        assert profile.databases["default"].read_password() == "p@ss/w%rd"
    assert project.run("validate", "--all").code == 0


@pytest.mark.parametrize(
    ("name", "like"), [("local", "development"), ("Dev", "development"), ("ci", "testing"), ("prod", "production")]
)
@pytest.mark.parametrize("where", [".env", "environment"])
def test_the_profile_that_environment_names_is_there(project: Project, name: str, like: str, where: str) -> None:
    env = {"DATABASE_URL": "postgresql://app@db.internal/shop"}
    if where == ".env":
        project.write(".env", f"ENVIRONMENT={name}\n")
    else:
        env["ENVIRONMENT"] = name
    made = project.run("init", env=env)
    assert made.code == 0
    assert f"wrote config/{name}.yaml" in made.out
    assert f"selects {name}: it is as {like}" in made.out
    checked = project.run("validate", env=env)
    assert checked.out.startswith(f"{name}: valid"), checked.text
    folder = project.folder / "config"
    one, two = (load(each, path=folder, environ=env).databases["default"] for each in (name, like))
    assert (one.address, one.pool_size, one.protected) == (two.address, two.pool_size, two.protected)


@pytest.mark.parametrize(
    ("name", "said"),
    [("acme-7", "write config/acme-7.yaml, such as `extends: production`"), ("a b", "cannot be a profile's name")],
)
def test_a_profile_that_init_cannot_guess_is_told(project: Project, name: str, said: str) -> None:
    project.write(".env", f"ENVIRONMENT='{name}'\n")
    made = project.run("init")
    assert made.code == 0
    assert said in made.out
    assert not (project.folder / f"config/{name}.yaml").exists()


def test_a_gitignore_of_any_size_is_not_read(project: Project) -> None:
    path = project.write(".gitignore", "x\n" * 200_000)
    made = project.run("init")
    assert made.code == 0
    assert "note: .gitignore: it is larger than 256 KiB; it should contain the lines .env /data/" in made.err
    assert path.stat().st_size == 400_000


PURPOSES = {
    "config/default.yaml": "settings that every profile shares",
    "config/development.yaml": "the profile used when ENVIRONMENT is not set",
    "config/testing.yaml": "SQLite in memory, for tests",
    "config/production.yaml": "reads DATABASE_URL, and rejects drop_tables",
    "config/schema.json": "completion and checks in your editor",
}


def test_it_says_what_each_file_is_for_and_logs_no_statement(project: Project) -> None:
    written = [line.split(maxsplit=2) for line in project.run("init").out.splitlines() if line.startswith("wrote ")]
    assert PURPOSES.items() <= {name: purpose for _, name, purpose in written}.items()
    development = project.folder / "config" / "development.yaml"
    assert "echo: false             # true logs every SQL statement\n" in development.read_text()


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_the_variables_of_the_environment_are_used_on_request(project: Project, where: str) -> None:
    url = "postgresql://app:geheim@db.internal/shop"
    if where == ".env":
        project.write(".env", f"DATABASE_URL={url}\n")
    env = {"DATABASE_URL": url} if where == "environment" else {}
    result = project.run("init", "--from-env", env=env)
    assert (result.code, result.err) == (0, "")
    source = "from .env" if where == ".env" else "from the environment"
    assert f"development uses DATABASE_URL {source} (postgresql); production uses PRODUCTION_DATABASE_URL" in result.out
    assert "geheim" not in result.out
    text = (project.folder / "config" / "development.yaml").read_text()
    assert f"url: ${{DATABASE_URL}}   # {source}\n" in text
    profile = load("development", path=project.folder / "config", environ=env)
    assert str(profile.databases["default"].address) == "postgresql://app:***@db.internal/shop"
    assert project.run("validate", env=env).code == 0


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, "neither the environment nor .env names a database; looked for DATABASE_URL, SQLALCHEMY_DATABASE_URL"),
        ({"DATABASE_URL": "psql://app@db/shop"}, "DATABASE_URL from the environment is not used: "),
    ],
)
def test_variables_that_name_no_database_are_refused_and_nothing_is_written(
    project: Project, env: dict[str, str], told: str
) -> None:
    result = project.run("init", "--from-env", env=env)
    assert (result.code, told in result.err) == (2, True)
    assert not (project.folder / "config").exists()


@pytest.mark.parametrize("migrated", [False, True], ids=["tables", "migrations"])
@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_the_application_that_it_writes_runs_and_passes_its_tests(
    project: Project, framework: str, migrated: bool
) -> None:
    pytest.importorskip(framework)
    if migrated:
        pytest.importorskip("alembic")
    result = project.run("init", f"--{framework}", *(["--alembic"] if migrated else []))
    assert (result.code, result.err) == (0, "")
    assert "next: dbconfig check" in result.out
    done = _python(
        project,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        "-p",
        "no:randomly",
        "-p",
        "no:hypothesispytest",
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert not (project.folder / "data").exists()
    script = SCRIPTS[framework]
    if migrated:
        for arguments in (("revision", "--autogenerate", "-m", "first"), ("upgrade", "head")):
            assert _python(project, "-m", "alembic", *arguments).returncode == 0
    elif framework == "flask":
        assert _python(project, "-m", "flask", "--app", "app", "dbconfig", "create-tables").returncode == 0
    answered = _python(project, "-W", "error", "-c", script)
    assert (answered.stdout, answered.stderr) == ("[{'name': 'Ada', 'id': 1}]\n", "")


SCRIPTS = {
    "fastapi": """
from fastapi.testclient import TestClient
from app.main import app
with TestClient(app) as client:
    assert client.get("/health/db").json()["status"] == "ok"
    assert client.post("/heroes", json={"name": "Ada"}).json() == {"name": "Ada", "id": 1}
    print([{"name": hero["name"], "id": hero["id"]} for hero in client.get("/heroes").json()])
""",
    "flask": """
from app import create_app, db
app = create_app()
client = app.test_client()
assert client.post("/heroes", json={"name": "Ada"}).json == {"name": "Ada", "id": 1}
print([{"name": hero["name"], "id": hero["id"]} for hero in client.get("/heroes").json])
with app.app_context():
    db.registry.dispose()
""",
}


def _python(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("ENVIRONMENT", "DATABASE_URL")}
    return run_python(arguments, folder=project.folder, environ=kept, timeout=250)


def test_an_application_is_added_to_a_project_that_has_its_profiles_and_overwrites_nothing(project: Project) -> None:
    project.profile("url: sqlite:///mine.db\n")
    result = project.run("init", "--fastapi")
    assert (result.code, result.err) == (0, "")
    assert "config/ already exists, and is left unchanged" in result.out
    again = project.run("init", "--flask")
    assert again.code == 2
    assert "app/__init__.py, app/models.py, tests/conftest.py, tests/test_heroes.py, pytest.ini" in again.err
    both = project.run("init", "--fastapi", "--flask")
    assert (both.code, "use one of them" in both.err) == (2, True)


def test_an_env_file_that_cannot_be_read_is_a_problem_like_any_other(project: Project) -> None:
    os.symlink("/dev/null", project.folder / ".env")
    result = project.run("init", "--from-env")
    assert result.code == 2
    assert result.err.splitlines()[:2] == [
        "error[file-unreadable]: .env cannot be read: it is not a regular file",
        "  --> .env",
    ]
    assert not (project.folder / "config").exists()
