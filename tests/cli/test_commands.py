"""The commands, on configurations good and broken: what they write where, and how they end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from dbconfig import Profile
from dbconfig.cli.command_table import COMMANDS
from dbconfig.cli.parser import parse
from dbconfig.settings.database import DatabaseSettings
from tests.cli.conftest import Project
from tests.support.ports import free_port
from tests.support.servers import Server

ROOT = Path(__file__).parents[2]
SHARED = "pool_size: 5\nmax_overflow: 10\n"
PRODUCTION = """url: postgresql://app:${DB_PASSWORD}@db.internal/shop?sslmode=verify-full
pool_size: 20
databases:
  analytics:
    drivername: mysql
    host: ${WAREHOUSE_HOST:-warehouse}
    database: facts
    password: {env: WAREHOUSE_PASSWORD}
    query: {ssl_ca: ca.pem}
"""


@pytest.fixture
def shop(project: Project) -> Project:
    """Three profiles; production needs two variables."""
    project.profile(SHARED, "default")
    project.profile("url: sqlite:///data/app.db\n")
    project.profile("url: 'sqlite:///:memory:'\n", "testing")
    project.profile(PRODUCTION, "production")
    return project


class TestList:
    def test_it_marks_the_selected_profile_says_why_and_names_what_is_unset(self, shop: Project) -> None:
        result = shop.run("list", env={"ENVIRONMENT": "testing", "DB_PASSWORD": "geheim"})
        assert result.code == 0
        assert result.err == ""
        assert re.search(r"^> +testing +sqlite:///:memory: +in memory$", result.out, re.M)
        assert re.search(
            r"^ +production +postgresql://app:\*\*\*@db\.internal/shop\S* +20 \+ 10 +"
            r"DB_PASSWORD, WAREHOUSE_HOST \(optional\), WAREHOUSE_PASSWORD \(unset\)$",
            result.out,
            re.M,
        )
        assert "> selected: testing (ENVIRONMENT, environment)" in result.out

    def test_an_unset_url_is_shown_as_its_reference(self, project: Project) -> None:
        project.profile("url: ${DATABASE_URL}\n")
        assert "${DATABASE_URL}" in project.run("list").out
        assert "unset." not in project.run("list").out

    @pytest.mark.parametrize(("wrong", "said"), [("x: 1\n", "1 problem"), ("x: 1\ny: 2\n", "2 problems")])
    def test_problems_are_counted_in_english(self, project: Project, wrong: str, said: str) -> None:
        project.profile(f"url: sqlite://\n{wrong}")
        assert re.search(rf"^! +development +{said}$", re.sub("^>", "!", project.run("list").out, flags=re.M), re.M)
        assert f"development: invalid, {said}\n" in project.run("validate").out

    def test_a_profile_that_does_not_exist_is_answered_with_those_that_do(self, shop: Project) -> None:
        result = shop.run("list", "--profile", "prod")
        assert result.code == 2
        assert "production" in result.out
        assert "did you mean 'production'?" in result.err

    def test_json_has_a_schema_and_the_same_facts(self, shop: Project) -> None:
        found = json.loads(shop.run("list", "--format", "json").out)
        assert found["schema"] == "dbconfig/list/1"
        assert found["selected"] == "development"
        assert [profile["name"] for profile in found["profiles"]] == ["development", "production", "testing"]
        variables = {each["name"]: each for each in found["profiles"][1]["variables"]}
        assert variables["DB_PASSWORD"] == {"name": "DB_PASSWORD", "keys": ["url"], "required": True, "set": False}
        assert variables["WAREHOUSE_HOST"]["required"] is False


class TestShow:
    ENV: ClassVar = {"DB_PASSWORD": "geheim", "WAREHOUSE_PASSWORD": "x", "DBCONFIG_POOL_SIZE": "7"}

    def test_each_value_has_its_origin(self, shop: Project) -> None:
        result = shop.run("show", "production", env=self.ENV)
        assert result.code == 0
        rows = {line.split()[0]: line for line in result.out.partition("analytics")[0].splitlines() if line.strip()}
        assert rows["url"].endswith("config/production.yaml:1 (${DB_PASSWORD})")
        assert rows["pool_size"].endswith("DBCONFIG_POOL_SIZE, environment (overrides config/production.yaml:2 = 20)")
        assert rows["max_overflow"].endswith("config/default.yaml:2")
        assert rows["pool_timeout"].endswith(" default")
        assert "the environment overrides the files: DBCONFIG_POOL_SIZE" in result.err
        assert result.out.startswith("profile production (the command line), config/production.yaml")

    def test_all_shows_every_setting_and_every_layer(self, shop: Project) -> None:
        out = shop.run("show", "production", "--all", env=self.ENV).out
        for key in DatabaseSettings.model_fields:
            assert re.search(rf"^  {key} ", out, re.M), key
        assert "overrides config/production.yaml:2 = 20" in out
        assert "overrides config/default.yaml:1 = 5" in out

    @pytest.mark.parametrize("options", [(), ("--all",)])
    def test_each_replica_is_shown_with_what_it_does_not_share_and_its_place(
        self, project: Project, options: tuple[str, ...]
    ) -> None:
        replicas = "replicas:\n  - host: one\n    weight: 3\n    password: geheim\n  - {host: two, pool_size: 9}\n"
        project.profile(f"url: postgresql://app@db.internal/shop\npool_size: 3\n{replicas}")
        result = project.run("show", *options)
        assert (result.code, result.err) == (0, "")
        assert re.search(r"^  replicas +2 +config/development.yaml:3$", result.out, re.M)
        rows = [line.split(None, 2)[2] for line in result.out.splitlines() if re.match("    replica [12] ", line)]
        assert rows == [
            '{"weight": 3, "password": "***", "host": "one"}  config/development.yaml:5',
            '{"host": "two", "pool_size": 9}                  config/development.yaml:7',
        ]
        found = json.loads(project.run("show", "--format", "json").out)["databases"]["default"]["replicas"]["value"]
        assert [each["host"] for each in found] == ["one", "two"]
        assert "geheim" not in result.text

    def test_replicas_take_part_in_a_comparison(self, project: Project) -> None:
        for name, host in (("development", "one"), ("other", "two")):
            project.profile(f"url: postgresql://app@db/shop\nreplicas: [{{host: {host}}}]\n", name)
        out = project.run("show", "--diff", "other").out
        assert re.search(r'^replicas +\[\{"host": "one"\}\] +\[\{"host": "two"\}\]', out, re.M)

    def test_what_needs_no_variable_is_shown_above_what_is_missing(self, shop: Project) -> None:
        result = shop.run("show", "production")
        assert result.code == 2
        rows = dict(re.findall(r"^  (\w+) +(\S+)", result.out.partition("database analytics")[0], re.M))
        assert rows["pool_size"] == "20"
        assert rows["url"].startswith("postgresql://app:***@db.internal/shop")
        assert "unset." not in result.out
        assert "error[unset-variable]" in result.err
        assert json.loads(shop.run("show", "production", "--format", "json").out)["schema"] == "dbconfig/problems/1"

    def test_a_named_database_alone(self, shop: Project) -> None:
        out = shop.run("show", "production", "--database", "analytics", env=self.ENV).out
        assert "database analytics" in out
        assert "database default" not in out

    @pytest.mark.parametrize("profile", ["development", "testing", "production"])
    def test_the_engine_call_can_be_pasted(self, shop: Project, profile: str) -> None:
        env = {"DB_PASSWORD": "geheim", "WAREHOUSE_PASSWORD": "x"}
        result = shop.run("show", profile, "--engine", "--database", "default", env=env)
        names: dict[str, object] = {}
        exec(result.out, names)
        engine = names["engine"]
        pool_size = 20 if profile == "production" else 5
        assert engine.pool.size() == pool_size  # type: ignore[attr-defined]
        assert "geheim" not in result.out

    def test_two_profiles_side_by_side_need_no_variable(self, shop: Project) -> None:
        result = shop.run("show", "--diff", "production")
        assert result.code == 0
        assert re.search(r"^pool_size +5 +20 +config/default.yaml:1 \| config/production.yaml:2$", result.out, re.M)
        assert not re.search(r"^max_overflow", result.out, re.M)
        assert "databases.analytics.host" in result.out
        every = shop.run("show", "--diff", "production", "--all").out
        assert re.search(r"^= +max_overflow +10 +10 ", every, re.M)
        found = json.loads(shop.run("show", "--diff", "production", "--format", "json").out)
        assert found["schema"] == "dbconfig/diff/1"

    def test_json_has_every_setting_with_its_origin(self, shop: Project) -> None:
        found = json.loads(shop.run("show", "production", "--format", "json", env=self.ENV).out)
        assert found["schema"] == "dbconfig/show/1"
        settings = found["databases"]["default"]
        assert set(settings) == set(DatabaseSettings.model_fields)
        assert settings["pool_size"]["value"] == 7
        assert settings["pool_size"]["origin"]["variable"] == "DBCONFIG_POOL_SIZE"
        assert settings["pool_size"]["overrides"][0]["value"] == "20"


class TestValidate:
    def test_every_profile_is_valid_without_any_variable(self, shop: Project) -> None:
        result = shop.run("validate", "--all")
        assert result.code == 0
        assert result.err == ""
        assert "production: valid; needs DB_PASSWORD (unset), WAREHOUSE_PASSWORD (unset)" in result.out

    def test_what_is_wrong_around_an_unset_variable_is_found(self, shop: Project) -> None:
        shop.profile("url: postgresql://app:${PW}@db/shop\nhost: other\nport: ${PORT}\n", "production")
        result = shop.run("validate", "--all")
        assert result.code == 1
        assert "error[given-twice]" in result.err
        assert "production: invalid, 1 problem" in result.out

    def test_a_secret_with_two_sources_is_found_although_its_variable_is_unset(self, shop: Project) -> None:
        shop.profile("url: postgresql://app@db/shop\npassword: {file: secret, env: PW}\n", "production")
        result = shop.run("validate", "production")
        assert result.code == 1
        assert "a mapping with one key" in result.err

    @pytest.mark.parametrize(
        "value",
        [
            "pool_pre_ping: ${X}",
            "pool_timeout: ${X}",
            "poolclass: ${X}",
            "isolation_level: ${X}",
            "echo: ${X}",
            "host: ${X}",
            "port: ${X}",
        ],
    )
    def test_a_variable_may_stand_for_any_value(self, project: Project, value: str) -> None:
        project.profile(f"drivername: postgresql\ndatabase: shop\n{value}\n")
        result = project.run("validate")
        assert (result.code, result.err) == (0, "")
        assert "needs X (unset)" in result.out

    def test_a_problem_of_the_shared_file_is_told_once(self, shop: Project) -> None:
        shop.profile("pool_size: -1\n", "default")
        result = shop.run("validate", "--all")
        assert result.code == 1
        assert result.err.count("error[") == 1

    def test_advice_is_a_warning_and_with_strict_a_failure(self, shop: Project) -> None:
        shop.profile("url: 'sqlite:///:memory:'\n", "production")
        assert shop.run("validate", "--all").code == 0
        assert "warning[memory-in-production]" in shop.run("validate", "--all").err
        assert shop.run("validate", "--all", "--strict").code == 1

    def test_github_gets_annotations(self, shop: Project) -> None:
        shop.profile("url: sqlite:///app.db\nmax_overflw: 1\n", "production")
        result = shop.run("validate", "--all", "--format", "github")
        assert result.code == 1
        assert result.out == (
            "::error file=config/production.yaml,line=2,title=dbconfig[unknown-key],col=1::unknown key 'max_overflw'"
            "%0Ahelp: did you mean 'max_overflow'?\n"
        )

    def test_no_network_no_environment_no_driver_no_sqlalchemy(
        self, shop: Project, without_network: tuple[str, ...]
    ) -> None:
        shop.write(
            "sitecustomize.py",
            "import sys\n"
            "class Gone:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.partition('.')[0] in ('sqlalchemy', 'sqlmodel', 'psycopg2', 'pymysql', 'psycopg'):\n"
            "            raise ModuleNotFoundError(name)\n"
            "sys.meta_path.insert(0, Gone())\n",
        )
        prefix = (*without_network, "env", "-i", f"PYTHONPATH={shop.folder}", "PYTHONUTF8=1")
        result = shop.spawn("validate", "--all", prefix=prefix)
        assert (result.code, result.err) == (0, "")
        assert shop.spawn("check", prefix=prefix).code != 0  # the block is real


COMPLETIONS = [f"completion {shell}" for shell in ("bash", "zsh", "fish", "profiles")]


class TestHelp:
    @pytest.mark.parametrize("command", ["--help", "check --help", "--version", *COMPLETIONS])
    def test_it_starts_as_fast_as_python(self, shop: Project, command: str) -> None:
        script = (
            "import sys, dbconfig.cli\n"
            "before = set(sys.modules)\n"
            f"try: dbconfig.cli.main({command.split()!r})\n"
            "except SystemExit: pass\n"
            "sys.stderr.write(' '.join(m for m in set(sys.modules) - before if not m.startswith('dbconfig')))\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=shop.folder
        )
        assert run.stdout
        assert run.stderr == ""

    def test_what_needs_no_engine_imports_no_sqlalchemy(self, shop: Project) -> None:
        script = (
            "import sys, dbconfig.cli\n"
            "for command in ('list', 'show', 'show --diff testing', 'validate --all', 'explain busy', 'schema'):\n"
            "    assert dbconfig.cli.main(command.split()) == 0, command\n"
            "    assert 'sqlalchemy' not in sys.modules, command\n"
        )
        env = {name: value for name, value in os.environ.items() if name != "ENVIRONMENT"}
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=shop.folder, env=env)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_help(self, project: Project, command: str) -> None:
        result = project.run(command, "--help")
        assert result.code == 0
        assert COMMANDS[command].summary.split("?")[0] in " ".join(result.out.split())

    def test_help_is_a_word_too(self, project: Project) -> None:
        assert project.run("help").out == project.run("--help").out
        assert project.run("help", "check").out == project.run("check", "--help").out

    @pytest.mark.parametrize(
        ("arguments", "found"),
        [
            ("--config here show", {"config": "here", "all": False, "diff": None}),
            ("--profile=a show --profile=b", {"profile": "b"}),
            ("show --all prod --database=x=y", {"profile": "prod", "all": True, "database": "x=y"}),
            ("show -- --all", {"profile": "--all", "all": False}),
            ("init --alembic", {"alembic": "migrations", "folder": "."}),
            ("init --alembic --flask there", {"alembic": "migrations", "flask": True, "folder": "there"}),
            ("init --alembic=m", {"alembic": "m"}),
            ("create-tables m:x a b", {"metadata": "m:x", "tables": ["a", "b"]}),
            ("create-tables a:b", {"tables": []}),
            ("check --workers 3 --timeout 500ms", {"workers": 3, "timeout": 0.5, "replicas": 1, "pools": None}),
            ("validate", {"format": "text", "color": "auto", "strict": False, "command": "validate"}),
            ("--format json validate", {"format": "json"}),
        ],
    )
    def test_what_is_given_is_found(self, arguments: str, found: dict[str, object]) -> None:
        parsed = parse(arguments.split())
        assert {name: getattr(parsed, name) for name in found} == found

    @pytest.mark.parametrize(("columns", "longest"), [("80", 78), ("132", 130), ("60", 58)])
    def test_it_fits_the_terminal(self, project: Project, columns: str, longest: int) -> None:
        lines = project.run("init", "--help", env={"COLUMNS": columns}).out.splitlines()
        assert longest - 22 < max(map(len, lines)) <= longest

    def test_every_command_has_a_module(self) -> None:
        folder = ROOT / "dbconfig/cli/commands"
        modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        modules -= {"__init__"}
        assert modules == {name.replace("-", "_") for name in COMMANDS}

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["lst"], "unknown command 'lst'; did you mean 'list'?"),
            (["--verison"], "dbconfig has no option '--verison'; did you mean '--version'?"),
            (["list", "--help=x"], "argument -h/--help: does not accept a value: 'x'"),
            (["list", "-"], "`dbconfig list` has no argument '-'"),
            (["--profile", "x", "chek"], "did you mean 'check'?"),
            (["show", "--engin"], "`dbconfig show` has no option '--engin'; did you mean '--engine'?"),
            (["check", "--workers", "0"], "not a number of at least 1"),
            (["wait", "--timeout", "soon"], "not a duration"),
            (["ping", "--format", "github"], "argument --format: invalid choice: 'github' (choose from text, json)"),
            (["ping", "--timeout"], "argument --timeout: expected one argument\nusage: dbconfig ping [-h] [--database"),
            (["ping", "--timeout", "--profile"], "argument --timeout: expected one argument"),
            (["check", "--workers", "-1"], "argument --workers: '-1' is not a number of at least 1"),
            (["show", "--all=yes"], "argument --all: does not accept a value: 'yes'"),
            (["create-tables"], "the following arguments are required: MODULE:METADATA\n"),
            (["completion", "tcsh"], "argument SHELL: invalid choice: 'tcsh' (choose from bash, zsh, fish, profiles)"),
            (["list", "shop"], "`dbconfig list` has no argument 'shop'"),
            (["show", "a", "--profile", "b"], "two profiles"),
            ([], "no command"),
            (["--profle", "x", "list"], "dbconfig has no option '--profle'; did you mean '--profile'?"),
            (["--workers", "2", "check"], "'--workers' is an option of a command, such as `dbconfig check`"),
            (["show", "--engine", "--diff", "testing"], "`--engine` and `--diff` are two views of a profile"),
        ],
    )
    def test_what_cannot_be_understood_ends_with_2(self, project: Project, arguments: list[str], said: str) -> None:
        result = project.run(*arguments)
        assert result.code == 2
        assert result.out == ""
        assert said in result.err


class TestColour:
    BROKEN = "url: sqlite:///app.db\nmax_overflw: 1\n"

    @pytest.mark.parametrize(
        ("options", "env", "coloured"),
        [
            ((), {}, False),
            ((), {"FORCE_COLOR": "1"}, True),
            ((), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
            (("--color", "always"), {"NO_COLOR": "1"}, True),
            (("--color", "never"), {"FORCE_COLOR": "1"}, False),
        ],
    )
    def test_the_option_rules_then_no_color_then_force_color_then_the_terminal(
        self, project: Project, options: tuple[str, ...], env: dict[str, str], coloured: bool
    ) -> None:
        project.profile(self.BROKEN)
        assert ("\x1b" in project.run("validate", *options, env=env).text) is coloured

    @pytest.mark.skipif(os.name != "posix", reason="pseudo terminals")
    def test_a_terminal_gets_colour(self, project: Project) -> None:
        import pty

        project.profile(self.BROKEN)
        leader, follower = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "PYTHONUTF8": "1"}
        env.pop("NO_COLOR", None)
        subprocess.run(
            [sys.executable, "-m", "dbconfig", "validate"],
            cwd=project.folder,
            stdout=follower,
            stderr=follower,
            env=env,
        )
        os.close(follower)
        written = b""
        try:
            while chunk := os.read(leader, 4096):
                written += chunk
        except OSError:
            pass  # Linux says "input/output error" where the other side is closed
        os.close(leader)
        assert b"\x1b[1;31m" in written

    @pytest.mark.parametrize("format", ["json", "github"])
    def test_no_escape_stands_in_what_a_program_reads(self, project: Project, format: str) -> None:
        project.profile(self.BROKEN)
        result = project.run("validate", "--format", format, "--color", "always")
        assert "\x1b" not in result.text

    def test_what_a_file_says_cannot_drive_the_terminal(self, project: Project) -> None:
        project.profile('url: sqlite:///app.db\nlogging_name: "a\\u009b31mb"\nvariables: {"x\\u001b[31m": 1}\n')
        for command in (("show",), ("show", "--format", "json"), ("validate",), ("show", "--engine")):
            text = project.run(*command).text
            assert "\x1b" not in text
            assert "\x9b" not in text


class TestPing:
    def test_an_answer_and_its_time(self, shop: Project) -> None:
        result = shop.run("ping", "testing")
        assert result.code == 0
        assert re.fullmatch(r"testing/default: answers in \d+\.\d ms \(the command line\)\n", result.out)

    def test_a_server_answers_and_a_stopped_one_is_told(self, project: Project, server: Server) -> None:
        project.profile(f"url: {server.url()}\n")
        assert project.run("ping").code == 0
        server.stop()
        result = project.run("ping", "--format", "json")
        assert result.code == 1
        assert json.loads(result.out)["databases"]["default"]["problem"]["slug"] == "refused"

    def test_a_silent_server_is_waited_for_no_longer_than_was_said(self, project: Project, server: Server) -> None:
        project.profile(f"url: {server.url()}\n")
        server.pause()
        result = project.run("ping", "--timeout", "500ms")
        server.resume()
        assert result.code == 1
        assert "error[timed-out]" in result.err


class TestWait:
    def test_it_waits_for_a_server_that_starts_late(self, project: Project, server: Server) -> None:
        project.profile(f"url: {server.url()}\n")
        server.stop()
        command = [sys.executable, "-m", "dbconfig", "wait", "--timeout", "30"]
        with subprocess.Popen(
            command, cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stderr is not None
            assert "refused" in waiting.stderr.readline()
            server.start()
            out, _ = waiting.communicate(timeout=30)
        assert waiting.returncode == 0
        assert "development/default: answers, after" in out

    def test_a_wrong_password_ends_it_at_once(self, project: Project, server: Server) -> None:
        project.profile(f"url: {server.url(password='wrong')}\n")
        result = project.run("wait", "--timeout", "60")
        assert result.code == 1
        assert "error[login-rejected]" in result.err

    def test_it_gives_up_at_its_time(self, project: Project) -> None:
        from tests.support.ports import free_port

        project.profile(f"url: postgresql://app@127.0.0.1:{free_port()}/shop\n")
        result = project.run("wait", "--timeout", "300ms")
        assert result.code == 1
        assert result.err.count("waiting for") == 1
        assert "error[refused]" in result.err


class TestCreateTables:
    MODELS = (
        "from sqlmodel import Field, MetaData, SQLModel\n"
        "class Base(SQLModel):\n    metadata = MetaData()\n"
        "class Hero(Base, table=True):\n    id: int | None = Field(default=None, primary_key=True)\n"
        "class Team(Base, table=True):\n    id: int | None = Field(default=None, primary_key=True)\n"
    )

    def test_named_tables_are_created_once(self, shop: Project) -> None:
        shop.write("heroes_of_cli.py", self.MODELS)
        first = shop.run("create-tables", "heroes_of_cli:Base", "hero")
        assert (first.code, first.err) == (0, "")
        assert "created  hero" in first.out
        again = shop.run("create-tables", "heroes_of_cli:Base.metadata", "--format", "json")
        found = json.loads(again.out)
        assert (found["created"], found["existing"]) == (["team"], ["hero"])

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("no_such_module:metadata", "cannot be imported"),
            ("heroes_of_cli:Bas", "did you mean 'Base'?"),
            ("json:loads", "is not MetaData"),
        ],
    )
    def test_a_target_that_is_none_is_told(self, shop: Project, target: str, said: str) -> None:
        shop.write("heroes_of_cli.py", self.MODELS)
        result = shop.run("create-tables", target)
        assert result.code == 2
        assert said in result.err


class TestExplain:
    def test_a_near_miss_is_proposed(self, project: Project) -> None:
        result = project.run("explain", "unknown-keys")
        assert result.code == 2
        assert "did you mean 'unknown-key'?" in result.err

    def test_json(self, project: Project) -> None:
        found = json.loads(project.run("explain", "unknown-key", "--format", "json").out)
        assert found["schema"] == "dbconfig/explain/1"
        assert set(found) == {"schema", "slug", "meaning", "example", "fix"}


def test_the_interrupt_of_a_person_ends_with_130(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbconfig.cli.commands import explain

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(explain, "run", interrupted)
    assert project.run("explain").code == 130


def test_a_reader_that_goes_away_is_no_error(shop: Project) -> None:
    command = f"{sys.executable} -m dbconfig explain | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=shop.folder, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_the_reference_names_every_setting() -> None:
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert all(f"### `{key}`" in page for key in DatabaseSettings.model_fields)
    assert Profile is not None


class TestCheck:
    def test_every_step_has_its_facts_in_json(self, project: Project, server: Server) -> None:
        project.profile(f"url: {server.url()}\nstatement_timeout: 3s\n")
        result = project.run("check", "--workers", "2", "--format", "json")
        assert result.code == 0
        found = json.loads(result.out)
        assert found["schema"] == "dbconfig/check/1"
        steps = {step["name"]: step for step in found["databases"]["default"]["steps"]}
        assert list(steps)[:5] == ["resolve", "tcp", "tls", "login", "query"]
        assert all(step["ok"] for step in steps.values())
        assert steps["pool"]["facts"]["processes"] == 2
        assert steps["query"]["facts"]["connections_max"] == 100
        assert "3" in str(steps["query"]["facts"]["variables"])

    def test_a_second_pool_is_counted_where_both_kinds_of_sessions_can_be_used(
        self, project: Project, server: Server
    ) -> None:
        project.profile(f"url: {server.url()}\npool_size: 20\nmax_overflow: 10\n")  # of 100
        both = project.run("check", "--workers", "2")
        assert both.code == 0
        assert "warning[pool-over-budget]: synchronous and asynchronous sessions use separate pools" in both.err
        assert "may open 120 connections" in both.err
        one = project.run("check", "--workers", "2", "--pools", "1")
        assert (one.code, one.err) == (0, "")
        two = project.run("check", "--workers", "2", "--pools", "2")
        assert two.code == 1
        assert "(20 + 10) × 2 pools × 2 workers × 1 replica = 120 connections" in two.out

    def test_one_kind_of_sessions_has_one_pool(self, project: Project, postgresql: Server) -> None:
        project.profile(f"url: {postgresql.url('postgresql+psycopg2')}\npool_size: 20\nmax_overflow: 10\n")
        assert project.run("check", "--workers", "2").err == ""

    def test_of_several_servers_one_may_be_down(self, project: Project, postgresql: Server) -> None:
        from tests.support.ports import free_port

        dead = free_port()
        hosts = f"host=127.0.0.1:{dead}&host=127.0.0.1:{postgresql.port}"
        project.profile(f"url: postgresql://app:app-secret@/{postgresql.database}?{hosts}\n")
        result = project.run("check")
        assert result.code == 0
        assert f"warning[refused]: nothing listens on 127.0.0.1:{dead}" in result.err

    def test_a_socket_in_the_file_system_needs_no_name_and_no_port(self, project: Project, server: Server) -> None:
        where = {
            "postgresql": f"drivername: postgresql\nhost: {server.socket}\nport: {server.port}\n",
            "mariadb": f"drivername: mariadb\nquery: {{unix_socket: {server.socket}}}\n",
        }[server.kind]
        if server.kind == "postgresql" and len(server.socket) > 80:
            pytest.skip("the path of the socket is too long for the system")
        project.profile(f"{where}username: app\npassword: {server.password}\ndatabase: {server.database}\n")
        result = project.run("check")
        assert result.code == 0, result.text
        assert "resolve" not in result.out

    def test_an_encrypted_connection_is_told(self, project: Project, tls_postgresql: Server) -> None:
        url = f"{tls_postgresql.url()}?sslmode=verify-full&sslrootcert={tls_postgresql.certificate}"
        project.profile(f"url: {url}\n")
        result = project.run("check")
        assert result.code == 0, result.text
        assert "offered, required by the profile" in result.out
        assert "TLSv1." in result.out

    @pytest.mark.parametrize("sslmode", ["require", "verify-full"])
    def test_tls_is_demanded_by_the_key_as_by_the_url(self, project: Project, server: Server, sslmode: str) -> None:
        root = f"sslrootcert: {server.certificate or 'system'}\n" if sslmode == "verify-full" else ""
        project.profile(f"url: {server.url()}\nsslmode: {sslmode}\n{root}")
        result = project.run("check")
        assert result.code == 1
        assert re.search(r"^  failed  tls +\d+\.\d ms  tls-refused", result.out, re.M), result.text

    def test_each_replica_is_checked_and_a_dead_one_is_an_error(self, project: Project, server: Server) -> None:
        dead = free_port()
        project.profile(f"url: {server.url()}\nreplicas:\n  - {{}}\n  - port: {dead}\n")
        result = project.run("check")
        assert result.code == 1
        assert "replica 1 of default: " in result.out
        assert f"127.0.0.1:{dead}/" in result.out
        assert f"error[refused]: nothing listens on 127.0.0.1:{dead}" in result.err
        assert "config/development.yaml:4:5  (replicas.1.port)" in result.err
        found = json.loads(project.run("check", "--format", "json").out)["databases"]["default"]
        assert found["problems"] == []
        first, second = found["replicas"]
        assert {step["name"]: step["ok"] for step in first["steps"]}["standby"]
        assert second["problems"][0]["key"] == "replicas.1.port"

    def test_a_standby_may_refuse_writes_as_a_replica(
        self, project: Project, postgresql: Server, standby: Server
    ) -> None:
        project.profile(f"url: {postgresql.url()}\nreplicas: [{{port: {standby.port}}}]\n")
        result = project.run("check")
        assert result.code == 0, result.text
        assert re.search(r"^  ok +standby +it is a standby$", result.out, re.M)

    def test_all_databases_of_a_profile_are_checked(self, project: Project) -> None:
        project.profile("url: sqlite:///a.db\ndatabases: {other: {url: 'sqlite:////proc/nowhere/b.db'}}\n")
        result = project.run("check")
        assert result.code == 1
        assert "database default" in result.out
        assert "databases.other.url" in result.err
        assert project.run("check", "--database", "default").code == 0


def test_the_engine_call_needs_no_dbconfig(shop: Project) -> None:
    result = shop.run("show", "--engine")
    assert "dbconfig" not in result.out.partition("engine = ")[2].partition("\n)")[0].replace("development", "")
    assert "import" in result.out
    assert "from dbconfig" not in result.out


def test_every_json_document_has_the_schema_that_the_page_names(shop: Project) -> None:
    shop.write("no_tables_of_cli.py", "from sqlalchemy import MetaData\nmetadata = MetaData()\n")
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    commands = {
        "list": ("list",),
        "show": ("show",),
        "diff": ("show", "--diff", "testing"),
        "engine": ("show", "--engine"),
        "validate": ("validate", "--all"),
        "check": ("check",),
        "doctor": ("doctor",),
        "ping": ("ping",),
        "top": ("top",),
        "wait": ("wait",),
        "create-tables": ("create-tables", "no_tables_of_cli:metadata"),
        "explain": ("explain", "busy"),
        "problems": ("show", "--profile", "nobody"),
    }
    for name, command in commands.items():
        result = shop.run(*command, "--format", "json")
        found = json.loads(result.out)
        assert found["schema"] == f"dbconfig/{name}/1"
        row = next(line for line in page.splitlines() if f"`dbconfig/{name}/1`" in line and line.startswith("|"))
        documented = set(re.findall(r"`(\w+)`", row.rpartition(" | ")[2])) & set(found)
        assert documented, name
    assert set(re.findall(r"`dbconfig/([\w-]+)/1`", page)) == set(commands)
