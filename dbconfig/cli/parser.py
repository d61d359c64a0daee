"""The command line's arguments; only argparse is imported, so that `--help` and completion start immediately."""

from __future__ import annotations

import argparse
import re

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final, NoReturn


class UsageError(Exception):
    """A command line that cannot be parsed; the text suggests what was probably meant."""


class Argument:
    """An argument of argparse: its names, and what add_argument takes."""

    def __init__(self, names: tuple[str, ...], options: dict[str, Any]) -> None:
        self.names = names
        self.options = options


class Command:
    """A command: its summary, its arguments, the formats of its output."""

    def __init__(
        self,
        summary: str,
        arguments: tuple[Argument, ...] = (),
        formats: tuple[str, ...] = ("text", "json"),
        description: str = "",
    ) -> None:
        self.summary = summary
        self.arguments = arguments
        self.formats = formats
        self.description = description


def _option(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


_PROFILE: Final = _option("profile_argument", metavar="PROFILE", nargs="?", help="the profile, like --profile")
_DATABASE: Final = _option("--database", metavar="NAME", help="one database of the profile (all)")
_ALL: Final = "--all"


def seconds(text: str) -> float:
    """Return a duration: `5`, `500ms`, `5s`, `1m`."""
    from dbconfig.errors.printable import quoted
    from dbconfig.settings.durations import parsed  # brings pydantic along, which --help can do without

    found = parsed(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a duration: write 5, 500ms, 5s or 1m")
    return found


def count(text: str) -> int:
    """Return a number of at least one."""
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


_TIMEOUT: Final = _option(
    "--timeout", metavar="SECONDS", type=seconds, default=5.0, help="time limit of each step (5s)"
)

COMMANDS: Final[dict[str, Command]] = {
    "list": Command("list the profiles with their databases, pools, and required variables"),
    "show": Command(
        "show each value of a profile and where it comes from",
        (
            _PROFILE,
            _option(_ALL, action="store_true", help="show every key, and overridden values too"),
            _option("--engine", action="store_true", help="show the resulting create_engine call, with secrets masked"),
            _option("--diff", metavar="OTHER", help="compare with another profile, side by side"),
            _DATABASE,
        ),
    ),
    "validate": Command(
        "check what the files say, without network, secrets, or drivers",
        (
            _PROFILE,
            _option(_ALL, action="store_true", help="validate every profile, not only the selected one"),
            _option("--strict", action="store_true", help="treat warnings as errors"),
        ),
        ("text", "json", "github"),
    ),
    "check": Command(
        "connect to every server step by step, and check that the pools fit",
        (
            _PROFILE,
            _DATABASE,
            _option(
                "--workers",
                metavar="N",
                type=count,
                default=1,
                help="worker processes per instance of the application (1)",
            ),
            _option("--replicas", metavar="M", type=count, default=1, help="instances of the application (1)"),
            _option(
                "--pools",
                metavar="P",
                type=count,
                help=(
                    "pools in each process (1); asynchronous sessions have one more, and reading sessions of either "
                    "kind one more each"
                ),
            ),
            _TIMEOUT,
        ),
    ),
    "doctor": Command(
        "say in ten lines how the databases are: server, role, TLS, pool, replicas, migrations, warnings",
        (_PROFILE, _DATABASE, _TIMEOUT),
        description="For the person on call; `check` goes step by step, `top` shows who uses the servers.",
    ),
    "top": Command(
        "show who uses the servers: applications, open transactions, blockers, and free connections",
        (
            _PROFILE,
            _DATABASE,
            _option("--url", metavar="URL", help="the /health/db/details of an application, for its pools"),
            _option(
                "--header", metavar="VARIABLE", help="the variable that holds an HTTP header for the guard of --url"
            ),
            _option("--interval", metavar="SECONDS", type=seconds, default=2.0, help="time between two looks (2s)"),
            _option("--once", action="store_true", help="look once, and print"),
        ),
        description="A display that refreshes needs the extra `top`.",
    ),
    "ping": Command("send one query to each database, for health checks", (_PROFILE, _DATABASE, _TIMEOUT)),
    "wait": Command(
        "wait until the databases answer, for container entry points",
        (
            _PROFILE,
            _DATABASE,
            _option(
                "--timeout", metavar="SECONDS", type=seconds, default=30.0, help="time limit of the whole wait (30s)"
            ),
        ),
        description="Permanent errors, such as a wrong password, end the wait immediately.",
    ),
    "create-tables": Command(
        "create the tables that do not exist yet",
        (
            _option(
                "metadata", metavar="MODULE:METADATA", help="where the tables are defined, such as shop.models:metadata"
            ),
            _option("tables", metavar="TABLE", nargs="*", help="tables to create (all)"),
            _DATABASE,
        ),
    ),
    "shell": Command(
        "open the database's own shell: psql, mysql, mariadb, or sqlite3",
        (_PROFILE, _DATABASE),
        ("text",),
        "No value is passed on the command line, where other users could read it.",
    ),
    "init": Command(
        "write a config folder with four commented profiles",
        (
            _option(
                "folder", metavar="FOLDER", nargs="?", default=".", help="the project folder (the working directory)"
            ),
            _option(
                "--alembic",
                metavar="DIR",
                nargs="?",
                const="migrations",
                help="write migrations too, in DIR (migrations)",
            ),
            _option("--models", metavar="MODULE", help="the module that the migrations import (app.models)"),
            _option("--from-env", action="store_true", help="connect development to the database in DATABASE_URL"),
            _option("--fastapi", action="store_true", help="write a small FastAPI application and its tests too"),
            _option("--flask", action="store_true", help="write a small Flask application and its tests too"),
        ),
        ("text",),
        "Nothing is overwritten. With --alembic, --fastapi or --flask, an existing config folder stays as it is.",
    ),
    "schema": Command("print the JSON schema of the YAML files, for editors", (), ("json",)),
    "explain": Command(
        "explain a problem or a key: what it means, an example, what to do",
        (_option("slug", metavar="SLUG", nargs="?", help="the word in brackets, or a key of the YAML (list all)"),),
    ),
    "completion": Command(
        "print a script that completes commands, options, and profile names",
        (
            # `profiles` is what the scripts themselves ask for.
            _option("shell", metavar="SHELL", choices=("bash", "zsh", "fish", "profiles"), help="bash, zsh or fish"),
        ),
        ("text",),
        'Bash: eval "$(dbconfig completion bash)"',
    ),
}


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"error: {message}\n{self.format_usage().rstrip()}\nhelp: {self.prog} --help")


def build(wanted: str | None = None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of one command: those of the others are not asked for."""
    parser = _Parser(
        prog="dbconfig",
        description="Database connections for SQLModel, configured in YAML.",
        epilog="exit codes: 0 success, 1 a check found a problem, 2 the command could not run, 130 interrupted",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    _common(parser, None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=_Parser)
    for name, command in COMMANDS.items():
        child = commands.add_parser(
            name, help=command.summary, description=f"{command.summary}. {command.description}".strip()
        )
        if name == wanted:
            for argument in command.arguments:
                child.add_argument(*argument.names, **argument.options)
            _common(child, command)
    return parser


def _common(parser: argparse.ArgumentParser, command: Command | None) -> None:
    """Add the options that stand before or after a command; after it they count, if they stand there."""
    group = parser.add_argument_group("common options")
    default = None if command is None else argparse.SUPPRESS
    group.add_argument("--config", metavar="PATH", default=default, help="the folder of the profiles (config/)")
    group.add_argument(
        "--profile", metavar="NAME", default=default, help="the profile, instead of the one that ENVIRONMENT names"
    )
    formats = ("text", "json", "github") if command is None else command.formats
    text = f"{', '.join(formats[:-1])} or {formats[-1]}" if len(formats) > 1 else formats[0]
    group.add_argument("--format", choices=formats, default=default, help=f"{text} ({formats[0]})")
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default=default,
        help="auto decides by NO_COLOR, FORCE_COLOR, and the terminal",
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the arguments.

    Raises:
        UsageError: they cannot be understood.
    """
    arguments = _without_help(arguments)
    parser = build(_command(arguments))
    found, rest = parser.parse_known_args(arguments)
    if rest:
        _unknown(rest, found.command)
    if found.version:
        from dbconfig import __version__

        print(f"dbconfig {__version__}")  # noqa: T201  # the answer
        raise SystemExit(0)
    if found.command is None:
        raise UsageError(f"{parser.format_help().rstrip()}\n\nerror: no command")
    if getattr(found, "engine", False) and found.diff is not None:
        raise UsageError("error: `--engine` and `--diff` are two views of a profile: give one of them")
    if getattr(found, "fastapi", False) and found.flask:
        raise UsageError("error: `--fastapi` and `--flask` write the same files: give one of them")
    positional = getattr(found, "profile_argument", None)
    if positional is not None and found.profile is not None and positional != found.profile:
        raise UsageError(f"error: two profiles: {positional!r} and --profile {found.profile!r}")
    found.profile = found.profile if positional is None else positional
    formats = COMMANDS[found.command].formats
    found.format = found.format or formats[0]
    if found.format not in formats:
        raise UsageError(f"error: `{found.command}` writes {' or '.join(formats)}, not {found.format}")
    found.color = found.color or "auto"
    found.module = found.command.replace("-", "_")
    return found


def _without_help(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments; `help` and `help COMMAND`, which many tools have, are `--help`."""
    if not arguments or arguments[0] != "help":
        return arguments
    return [*arguments[1:], "--help"]


def _command(arguments: Sequence[str]) -> str | None:
    """Return the command: the first word that is neither an option nor the value of one."""
    takes_value = ("--config", "--profile", "--format", "--color")
    words = iter(arguments)
    for word in words:
        if word in takes_value:
            next(words, None)
        elif not word.startswith("-"):
            if word not in COMMANDS:
                listed = "\n".join(f"  {name:<14} {command.summary}" for name, command in COMMANDS.items())
                raise UsageError(f"error: there is no command {word!r}{_meant(word, COMMANDS)}\n{listed}")
            return word
        elif word.partition("=")[0] not in (*takes_value, "--help", "-h", "--version"):
            # What follows may be its value, and is no command then.
            _unknown([word], None)
    return None


def _unknown(rest: Sequence[str], command: str | None) -> NoReturn:
    known = ["--config", "--profile", "--format", "--color", "--help"]
    known += [name for each in (COMMANDS[command].arguments if command else ()) for name in each.names]
    word = rest[0].partition("=")[0]
    of = f"`dbconfig {command}`" if command else "dbconfig"
    kind = "option" if word.startswith("-") else "argument"
    options = [name for name in known if name.startswith("-")] if kind == "option" else []
    if command is None and (owner := next((name for name, each in COMMANDS.items() if _has(each, word)), "")):
        raise UsageError(f"error: {word!r} is an option of a command, such as `dbconfig {owner}`: write it after that")
    raise UsageError(f"error: {of} has no {kind} {word!r}{_meant(word, options)}\nhelp: see {of.strip('`')} --help")


def _has(command: Command, option: str) -> bool:
    return any(option in argument.names for argument in command.arguments)


def _meant(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    from dbconfig.errors.printable import did_you_mean, suggest

    near = suggest(word.lower(), known)
    return f"; {did_you_mean(near)}" if near else ""
