"""What files, variables and servers say neither drives a terminal nor commands the CI system that shows the log."""

import json
import re
from itertools import product

import pytest

from dbconfig.errors import ConfigError, Location, Problem
from dbconfig.errors.printable import harmless
from tests.cli.conftest import Project, Result

# An escape of the terminal in 7 and in 8 bits, a title, DEL, a new line with a command of GitHub's, one that GitHub and
# one that Azure take in the middle of a line, the marks that turn text around, a line separator.
HOSTILE = "x\x1b[31my\x9b31mz\x1b]0;t\x07\x7f\r\n::error::a\n##[error]b##vso[task.c]d\u202ee\u2066f\u2028g\x00h"
COMMANDS = (
    ("list",),
    ("show",),
    ("show", "--all"),
    ("show", "--engine"),
    ("show", "--diff", "other"),
    ("validate", "--all"),
    ("check", "--timeout", "1"),
    ("ping", "--timeout", "1"),
    ("wait", "--timeout", "200ms"),
    ("create-tables", "hostile_models:metadata"),
)
TEXT = json.dumps(HOSTILE.replace("\x00", ""))  # which YAML reads as a scalar in double quotes
PROFILES = {
    "a user, a host and a database": f"drivername: postgresql\nhost: {TEXT}\nusername: {TEXT}\ndatabase: {TEXT}\n",
    "a file": f"drivername: sqlite\ndatabase: {TEXT}\n",
    "a variable's name": f"url: postgresql://app@127.0.0.1:1/d\npassword: {{env: {TEXT}}}\n",
    "a secret's file": f"url: postgresql://app@127.0.0.1:1/d\npassword: {{file: {TEXT}}}\n",
    "a provider": f"url: postgresql://app@127.0.0.1:1/d\npassword: {{provider: {TEXT}}}\n",
    "a reference": f'url: sqlite://\nlogging_name: "${{X:?{TEXT[1:-1]}}}"\n',
    "a key": f"url: sqlite://\n{TEXT}: 1\n",
    "a driver's argument": f"url: postgresql://app@127.0.0.1:1/d\nconnect_args: {{{TEXT}: 1}}\n",
    "a session variable": f"url: postgresql://app@127.0.0.1:1/d\nvariables: {{{TEXT}: 1}}\n",
    "a database's name": f"url: sqlite://\ndatabases: {{{TEXT}: {{url: 'sqlite://'}}}}\n",
    "values of many keys": "url: sqlite://\n"
    + "".join(f"{key}: {TEXT}\n" for key in ("logging_name", "poolclass", "isolation_level", "pool_size", "echo")),
    "a certificate": f"url: postgresql://app@127.0.0.1:1/d\nsslmode: verify-full\nsslrootcert: {TEXT}\n",
    "a replica": f"url: postgresql://app@127.0.0.1:1/d\nreplicas: [{{host: {TEXT}}}]\n",
    "what it extends": f"extends: {TEXT}\n",
    "a URL": f"url: {json.dumps('postgresql://app@127.0.0.1:1/' + HOSTILE[:-2])}\n",
}


def assert_harmless(result: Result) -> None:
    for line in result.text.split("\n"):
        assert not re.search("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", line), repr(line)
        assert "##[" not in line
        assert "##vso[" not in line
        # Only what was asked for as an annotation is one.
        assert not line.lstrip().startswith("::error::a"), line


@pytest.mark.parametrize("profile", PROFILES)
def test_no_command_passes_it_on(project: Project, profile: str) -> None:
    project.write("hostile_models.py", "from sqlalchemy import MetaData\nmetadata = MetaData()\n")
    project.profile(PROFILES[profile])
    project.profile("url: sqlite:///other.db\n", "other")
    for command, format in product(COMMANDS, ("text", "json")):
        assert_harmless(project.run(*command, "--format", format))
    assert_harmless(project.run("validate", "--all", "--format", "github"))


def test_no_command_passes_on_what_a_variable_says(project: Project) -> None:
    project.profile("drivername: sqlite\ndatabase: ${FILE}\npool_size: ${SIZE}\nlogging_name: ${NAME}\n")
    project.profile("url: sqlite:///other.db\n", "other")
    text = HOSTILE.replace("\x00", "")
    for command, format in product(COMMANDS[:-1], ("text", "json")):
        env = {"FILE": text, "SIZE": text, "NAME": text, "DBCONFIG_POOLCLASS": text, f"DBCONFIG_{text}": "1"}
        assert_harmless(project.run(*command, "--format", format, env=env))
        assert_harmless(project.run(*command, "--format", format, env={**env, "ENVIRONMENT": text}))


@pytest.mark.parametrize("arguments", [(HOSTILE,), ("show", HOSTILE), ("explain", HOSTILE), ("show", f"--{HOSTILE}")])
def test_nor_what_was_typed(project: Project, arguments: tuple[str, ...]) -> None:
    project.profile("url: sqlite://\n")
    assert_harmless(project.run(*arguments))


def test_nor_what_a_dotenv_says(project: Project) -> None:
    project.write(".env", f"DATABASE_URL={TEXT}\nENVIRONMENT={TEXT}\n")
    assert_harmless(project.run("init"))


def test_a_warning_of_the_library_is_a_note(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    from dbconfig.cli.commands import explain

    def warn(_: object) -> int:
        logging.getLogger("dbconfig.tls").warning("key file %s", HOSTILE)
        return 0

    monkeypatch.setattr(explain, "run", warn)
    result = project.run("explain")
    assert result.err.startswith("warning: key file x")
    assert_harmless(result)


def test_an_error_that_a_program_prints_is_harmless_too() -> None:
    place = Location(HOSTILE, 1, 1)
    problem = Problem("invalid-value", HOSTILE, place, HOSTILE, HOSTILE, (HOSTILE,), HOSTILE, ((place, HOSTILE),))
    assert_harmless(Result(0, str(ConfigError([problem])), ""))


def test_a_text_that_is_printed_twice_is_the_same() -> None:
    once = harmless(HOSTILE)
    assert harmless(once) == once
    assert harmless("x" * 100_000) == "x" * 100_000
