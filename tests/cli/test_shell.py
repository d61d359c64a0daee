"""`dbconfig shell`: what it starts, with which arguments and which environment, and what it refuses."""

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.cli.conftest import Project
from tests.support.proxy import Proxy
from tests.support.servers import MariaDBServer, PostgreSQLServer, Server


def _recorder(folder: Path, name: str) -> Path:
    """Make a program that writes down how it was started."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "option = next((a.partition('=')[2] for a in sys.argv if a.startswith('--defaults-file=')), None)\n"
        "import pathlib\n"
        "text = pathlib.Path(option).read_text() if option else ''\n"
        "started = json.dumps({'argv': sys.argv, 'env': dict(os.environ), 'file': text})\n"
        "pathlib.Path('started.json').write_text(started)\n"
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
    folder = _recorder(project.folder, program)
    project.profile(f"url: {url}\npassword: 'p\"ss\\w# rd'\n")
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "PGHOST": "elsewhere"}
    result = project.spawn("shell", env=env, options=("-W", "error"))
    assert result.code == 0, result.err
    assert "Warning" not in result.err, "nothing is left open"
    started = json.loads((project.folder / "started.json").read_text())
    assert not any("rd" in argument and "p" in argument for argument in started["argv"][1:] if "ss" in argument)
    if where == "env":
        assert started["env"]["PGPASSWORD"] == 'p"ss\\w# rd'
        assert started["env"]["PGHOST"] == "127.0.0.1"
        assert started["env"]["PGSSLMODE"] == "require"
    else:
        assert 'password="p\\"ss\\\\w# rd"' in started["file"]
        assert "ss" not in json.dumps(started["env"].get("MYSQL_PWD", ""))
        assert 'database="shop"' in started["file"]
        assert len(started["argv"]) == 2


def test_the_help_promises_what_is_kept_with_every_client(project: Project) -> None:
    """The path of SQLite's file, and the name of a service, are arguments."""
    text = " ".join(project.run("shell", "--help").out.split())
    assert "The password is never on a command line" in text
    assert "No value" not in text


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


def test_the_client_of_mysql_is_led_to_the_primary_among_several_hosts(
    project: Project, mariadb: Server, proxy: Callable[[Server], Proxy]
) -> None:
    dead = proxy(mariadb)
    dead.refuse()
    login = f"username: {mariadb.user}\npassword: {mariadb.password}\ndatabase: {mariadb.database}\n"
    started = _started(
        project, "mysql", f"drivername: mysql\n{login}host: ['127.0.0.1:{dead.port}', '127.0.0.1:{mariadb.port}']\n"
    )
    assert f'port="{mariadb.port}"' in started["file"]


def test_sqlite_opens_the_file_of_the_project(project: Project) -> None:
    project.profile("url: sqlite:///data/app.db\n")
    project.run("ping")
    result = project.spawn("shell", stdin="PRAGMA journal_mode;\n")
    if "not installed" in result.err:
        pytest.skip(result.err)
    assert result.out.strip() == "wal"


OPTIONS = (
    "-c\\! touch ran",
    "--execute=\\! touch ran",
    "--help",
    "-",
    "--",
    "a=b",
    "host=elsewhere dbname=other",
)


def _started(project: Project, program: str, profile: str, **env: str) -> Any:
    folder = _recorder(project.folder, program)
    project.profile(profile)
    path = f"{folder}:{os.environ['PATH']}"
    done = project.spawn("shell", env={"PATH": path, **env})
    assert done.code == 0, done.text
    return json.loads((project.folder / "started.json").read_text())


@pytest.mark.parametrize(
    ("program", "profile"),
    [
        ("psql", "drivername: postgresql\n"),
        ("psql", "drivername: postgresql+asyncpg\n"),
        ("mysql", "drivername: mysql\n"),
        ("mysql", "drivername: mysql+asyncmy\n"),
        ("mariadb", "drivername: mariadb\n"),
    ],
)
@pytest.mark.parametrize("name", OPTIONS)
def test_no_name_is_an_argument_of_its_own(project: Project, program: str, profile: str, name: str) -> None:
    text = json.dumps(name)
    parts = f"username: {text}\ndatabase: {text}\npassword: {text}\nhost: 127.0.0.1\n"
    started = _started(project, program, profile + parts)
    arguments = started["argv"][1:]
    assert all(argument.startswith("--defaults-file=/dev/fd/") for argument in arguments)
    if program == "psql":
        assert arguments == []
        assert started["env"]["PGDATABASE"] == started["env"]["PGUSER"] == name
    else:
        lines = started["file"].splitlines()
        escaped = name.replace("\\", "\\\\")
        assert {f'{key}="{escaped}"' for key in ("user", "database")} <= set(lines)


def test_a_file_of_sqlite_is_given_by_its_whole_path(project: Project) -> None:
    started = _started(project, "sqlite3", "drivername: sqlite\ndatabase: '-cmd .shell touch ran'\n")
    assert started["argv"][1:] == [f"{project.folder}/-cmd .shell touch ran"]


def test_the_real_sqlite_opens_a_file_whose_name_looks_like_an_option(project: Project) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    project.profile("drivername: sqlite\ndatabase: '-cmd'\n")
    done = project.spawn("shell", stdin="CREATE TABLE found (x);\n")
    assert (done.code, done.out) == (0, ""), done.text
    assert (project.folder / "-cmd").exists()


@pytest.mark.parametrize("name", ["--execute=\\! touch ran", "host=elsewhere dbname=other"])
def test_the_real_clients_take_a_name_for_a_name(project: Project, server: Server, name: str) -> None:
    password = "-p=\"'x"
    user = "--user=root"
    server.create_user(user, password)
    _make_database(server, name, user)
    profile = f"host: 127.0.0.1\nport: {server.port}\nusername: {user}\npassword: {json.dumps(password)}\n"
    system = "mariadb" if server.kind == "mariadb" else "postgresql"
    project.profile(f"drivername: {system}\n{profile}database: {json.dumps(name)}\n")
    asked = "SELECT database();" if system == "mariadb" else "SELECT current_database();"
    done = project.spawn("shell", stdin=f"{asked}\n")
    if "not installed" in done.err:
        pytest.skip(done.err)
    assert done.code == 0, done.text
    assert name.replace("\\", "\\\\" if system == "mariadb" else "\\") in done.out
    assert not (project.folder / "ran").exists()


def _make_database(server: Server, name: str, user: str) -> None:
    if isinstance(server, PostgreSQLServer):
        if not server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            server.sql(f'CREATE DATABASE "{name}"')
    elif isinstance(server, MariaDBServer):
        server.sql(f"CREATE DATABASE IF NOT EXISTS `{name}`")
        server.sql(f"GRANT ALL ON *.* TO '{user}'@'%'")


@pytest.mark.parametrize("what", ["username", "database", "password"])
def test_a_value_that_would_be_cut_and_read_as_an_option_is_refused(project: Project, what: str) -> None:
    folder = _recorder(project.folder, "mariadb")
    long = "x" * 4085 + "init-command=x"
    project.profile(f"drivername: mariadb\nhost: h\n{what}: {long}\n")
    done = project.spawn("shell", env={"PATH": f"{folder}:{os.environ['PATH']}"})
    assert done.code == 2
    assert "too long" in done.err
    assert long not in done.text
    assert not (project.folder / "started.json").exists()


def test_psql_gets_every_parameter_of_the_profile(project: Project) -> None:
    url = f"postgresql://app@/shop?host=one:5433&host=two&options={quote('-c geqo=off')}&gssencmode=disable"
    profile = f"url: {url}\nsslmode: verify-full\nsslrootcert: ca.pem\nconnect_args: {{channel_binding: require}}\n"
    project.write("ca.pem", "")
    env = _started(project, "psql", profile, PGSERVICE="elsewhere", PGSSLMODE="disable")["env"]
    assert (env["PGHOST"], env["PGPORT"]) == ("one,two", "5433,5432")
    assert (env["PGUSER"], env["PGDATABASE"]) == ("app", "shop")
    assert (env["PGSSLMODE"], env["PGSSLROOTCERT"]) == ("verify-full", f"{project.folder}/ca.pem")
    assert (env["PGOPTIONS"], env["PGGSSENCMODE"], env["PGCHANNELBINDING"]) == ("-c geqo=off", "disable", "require")
    assert "PGSERVICE" not in env


def test_what_the_profile_leaves_open_is_the_environments_as_for_the_program(project: Project) -> None:
    started = _started(project, "psql", "url: postgresql:///shop\n", PGHOST="db.internal", PGUSER="me")
    assert (started["env"]["PGHOST"], started["env"]["PGUSER"]) == ("db.internal", "me")


def test_a_service_is_named_and_what_the_profile_says_counts_more(project: Project) -> None:
    started = _started(project, "psql", "url: postgresql:///it's?service=shop\nusername: -x\n")
    assert started["argv"][1:] == ["--dbname=service='shop' user='-x' dbname='it\\'s'"]


@pytest.mark.parametrize(
    ("profile", "lines"),
    [
        ("sslmode: require\n", {"ssl-mode=REQUIRED"}),
        ("sslmode: disable\n", {"ssl-mode=DISABLED"}),
        ("sslmode: verify-full\nsslrootcert: ca.pem\n", {"ssl-mode=VERIFY_IDENTITY", 'ssl-ca="{folder}/ca.pem"'}),
        ("query: {ssl_ca: ca.pem}\n", {"ssl-mode=VERIFY_IDENTITY", 'ssl-ca="ca.pem"'}),
        ("query: {ssl_ca: ca.pem, ssl_check_hostname: 'false'}\n", {"ssl-mode=VERIFY_CA", 'ssl-ca="ca.pem"'}),
        ("connect_args: {ssl_disabled: true}\n", {"ssl-mode=DISABLED"}),
        ("", set()),
    ],
)
def test_the_client_of_mysql_demands_the_tls_that_the_profile_demands(
    project: Project, profile: str, lines: set[str]
) -> None:
    started = _started(project, "mysql", f"url: mysql://app@127.0.0.1/shop\n{profile}")
    found = {line for line in started["file"].splitlines() if "ssl" in line}
    assert found == {line.format(folder=project.folder) for line in lines}


def test_a_shell_is_no_less_careful_than_the_program(project: Project, server: Server) -> None:
    """The server offers no TLS: a client that requires TLS does not connect without it."""
    project.profile(f"url: {server.url('mariadb' if server.kind == 'mariadb' else None)}\nsslmode: require\n")
    done = project.spawn("shell", stdin="SELECT 40 + 2;\n")
    if "not installed" in done.err:
        pytest.skip(done.err)
    assert done.code != 0
    assert "42" not in done.out
