"""`dbconfig init` and `dbconfig shell`: what they write, what they start, and what they refuse."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dbconfig import load
from tests.cli.conftest import Project
from tests.support.servers import Server

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


def test_migrations_are_added_to_a_project_that_has_its_profiles(project: Project) -> None:
    project.profile("url: sqlite:///mine.db\n", "production")
    result = project.run("init", "--alembic")
    assert (result.code, result.err) == (0, "")
    assert "config/ is there already, and stays as it is" in result.out
    assert [path.name for path in (project.folder / "config").iterdir()] == ["production.yaml"]
    again = project.run("init", "--alembic")
    assert again.code == 2
    assert "alembic.ini, migrations/README, migrations/env.py, migrations/script.py.mako" in again.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--models", "app.models"), "--models is for migrations: add --alembic"),
        (("--alembic", "../elsewhere"), "'../elsewhere' is no folder within the project"),
        (("--alembic", "."), "'.' is no folder within the project"),
        (("--alembic", "100%"), "'100%' is no folder within the project"),
        (("--alembic", "--models", "app/models.py"), "'app/models.py' is no module of models"),
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


def _recorder(folder: Path, name: str) -> Path:
    """Make a program that writes down how it was started."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "option = next((a.partition('=')[2] for a in sys.argv if a.startswith('--defaults-file=')), None)\n"
        "json.dump({'argv': sys.argv, 'env': dict(os.environ), 'file': open(option).read() if option else ''},\n"
        "          open('started.json', 'w'))\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path.parent


@pytest.mark.parametrize(
    ("url", "program", "where"),
    [
        ("postgresql://app@127.0.0.1:5433/shop?sslmode=require", "psql", "env"),
        ("mysql://app@127.0.0.1:3307/shop", "mysql", "file"),
        ("mariadb://app@127.0.0.1:3307/shop", "mariadb", "file"),
    ],
)
def test_a_shell_gets_its_password_never_by_the_command_line(
    project: Project, url: str, program: str, where: str
) -> None:
    import json

    folder = _recorder(project.folder, program)
    project.profile(f"url: {url}\npassword: 'p\"ss\\w# rd'\n")
    result = project.spawn("shell", env={"PATH": f"{folder}:{os.environ['PATH']}", "PGHOST": "elsewhere"})
    assert result.code == 0, result.err
    started = json.loads((project.folder / "started.json").read_text())
    assert not any("rd" in argument and "p" in argument for argument in started["argv"][1:] if "ss" in argument)
    if where == "env":
        assert started["env"]["PGPASSWORD"] == 'p"ss\\w# rd'
        assert started["env"]["PGHOST"] == "127.0.0.1"
        assert started["env"]["PGSSLMODE"] == "require"
    else:
        assert 'password="p\\"ss\\\\w# rd"' in started["file"]
        assert "ss" not in json.dumps(started["env"].get("MYSQL_PWD", ""))
        assert started["argv"][-1] == "shop"


def test_a_protected_profile_asks_for_its_name(project: Project) -> None:
    folder = _recorder(project.folder, "sqlite3")
    project.profile("url: sqlite:///app.db\n", "production")
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    refused = project.spawn("shell", "production", env=env, stdin="yes\n")
    assert refused.code == 2
    assert "type its name" in refused.err
    assert not (project.folder / "started.json").exists()
    assert project.spawn("shell", "production", env=env, stdin="production\n").code == 0
    assert (project.folder / "started.json").exists()


def test_what_has_no_shell_is_told(project: Project) -> None:
    project.profile("url: 'sqlite:///:memory:'\n")
    assert "in-memory" in project.run("shell").err
    project.profile("url: postgresql://app@127.0.0.1/shop\n")
    result = project.run("shell", env={"PATH": "/nowhere"})
    assert result.code == 2
    assert "psql is not installed" in result.err


def test_the_real_shells_log_in(project: Project, server: Server) -> None:
    password = "p@ss w#rd\"'\\;é"
    server.create_user("person", password)
    url = server.url("mariadb" if server.kind == "mariadb" else None, user="person", password=password)
    project.profile(f"url: {url}\n")
    result = project.spawn("shell", stdin="SELECT 40 + 2;\n")
    if "not installed" in result.err:
        pytest.skip(result.err)
    assert result.code == 0, result.err
    assert "42" in result.out


def test_sqlite_opens_the_file_of_the_project(project: Project) -> None:
    project.profile("url: sqlite:///data/app.db\n")
    project.run("ping")
    result = project.spawn("shell", stdin="PRAGMA journal_mode;\n")
    if "not installed" in result.err:
        pytest.skip(result.err)
    assert result.out.strip() == "wal"
    assert subprocess.run(["true"], check=False).returncode == 0
