"""The commands and their arguments: the table that parsing, `--help`, and completion read."""

# No imports here, so that `--help` and completion start as fast as Python.

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final


class Argument:
    """An option or a word of a command."""

    def __init__(
        self,
        *names: str,
        help: str,
        metavar: str = "",
        flag: bool = False,
        nargs: str = "",
        choices: tuple[str, ...] = (),
        convert: Callable[[str], object] | None = None,
        default: object = None,
        const: str = "",
    ) -> None:
        """Describe it.

        Args:
            names: of an option, each with its dashes; or the attribute of a positional argument.
            help: one line for `--help`.
            metavar: placeholder of the value.
            flag: an option without a value.
            nargs: "?" if the value is optional, "*" for any number of words.
            choices: the only values.
            convert: converts the text, or raises a ValueError that says what is wrong.
            default: the value if it is not given.
            const: the value of an option given without one.
        """
        self.names = names
        self.help = help
        self.metavar = metavar or f"{{{','.join(choices)}}}"
        self.flag = flag
        self.nargs = nargs
        self.choices = choices
        self.convert = convert
        self.default: object = False if flag else default
        self.const = const

    @property
    def is_option(self) -> bool:
        return self.names[0].startswith("-")

    @property
    def kept_as(self) -> str:
        return self.names[-1].lstrip("-").replace("-", "_")

    @property
    def value(self) -> str:
        """How the value is written in a usage line."""
        if self.flag:
            return ""
        return {"?": f"[{self.metavar}]", "*": f"[{self.metavar} ...]"}.get(self.nargs, self.metavar)


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
        self.description = f"{summary}. {description}".strip()

    @property
    def options(self) -> list[Argument]:
        return [argument for argument in self.arguments if argument.is_option]

    @property
    def words(self) -> list[Argument]:
        return [argument for argument in self.arguments if not argument.is_option]


_PROFILE: Final = Argument("profile_argument", metavar="PROFILE", nargs="?", help="the profile; the same as --profile")
_DATABASE: Final = Argument("--database", metavar="NAME", help="one database of the profile (all)")
_ALL: Final = "--all"


def seconds(text: str) -> float:
    """Return a duration: `5`, `500ms`, `5s`, `1m`."""
    from dbconfig.errors.printable import quoted
    from dbconfig.settings.durations import parsed  # imports pydantic, which --help does not need

    found = parsed(text)
    if not found:
        raise ValueError(f"{quoted(text)} is not a duration: write 5, 500ms, 5s or 1m")
    return found


def count(text: str) -> int:
    """Return a number of at least one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and text[0] != "0"):
        raise ValueError(f"{text!r} is not a number of at least 1")
    return int(text)


_TIMEOUT: Final = Argument(
    "--timeout", metavar="SECONDS", convert=seconds, default=5.0, help="time limit of each step (5s)"
)

COMMANDS: Final[dict[str, Command]] = {
    "list": Command("list the profiles with their databases, pools, and required variables"),
    "show": Command(
        "show each value of a profile and where it comes from",
        (
            _PROFILE,
            Argument(_ALL, flag=True, help="show every key, and overridden values too"),
            Argument("--engine", flag=True, help="show the resulting create_engine call, with secrets masked"),
            Argument("--diff", metavar="OTHER", help="compare with another profile, side by side"),
            _DATABASE,
        ),
    ),
    "validate": Command(
        "check what the files say, without network, secrets, or drivers",
        (
            _PROFILE,
            Argument(_ALL, flag=True, help="validate every profile, not only the selected one"),
            Argument("--strict", flag=True, help="treat warnings as errors"),
        ),
        ("text", "json", "github"),
    ),
    "check": Command(
        "connect to every server step by step, and check that the pools fit",
        (
            _PROFILE,
            _DATABASE,
            Argument(
                "--workers",
                metavar="N",
                convert=count,
                default=1,
                help="worker processes per instance of the application (1)",
            ),
            Argument("--replicas", metavar="M", convert=count, default=1, help="instances of the application (1)"),
            Argument(
                "--pools",
                metavar="P",
                convert=count,
                help=(
                    "pools per process (1); asynchronous sessions add one, and read-only sessions of each kind add one"
                ),
            ),
            _TIMEOUT,
        ),
    ),
    "doctor": Command(
        "summarize each database in ten lines: server, role, TLS, pool, replicas, migrations, warnings",
        (_PROFILE, _DATABASE, _TIMEOUT),
        description="For on-call use. `check` tests each connection step by step; `top` shows who uses the servers.",
    ),
    "top": Command(
        "show who uses the servers: applications, open transactions, blockers, and free connections",
        (
            _PROFILE,
            _DATABASE,
            Argument("--url", metavar="URL", help="address of an application's /health/db/details, to show its pools"),
            Argument("--header", metavar="VARIABLE", help="environment variable that holds an HTTP header for --url"),
            Argument("--interval", metavar="SECONDS", convert=seconds, default=2.0, help="refresh interval (2s)"),
            Argument("--once", flag=True, help="print once and exit"),
        ),
        description="The refreshing display needs the extra `top`.",
    ),
    "ping": Command("send one query to each database, for health checks", (_PROFILE, _DATABASE, _TIMEOUT)),
    "wait": Command(
        "wait until the databases answer, for container entry points",
        (
            _PROFILE,
            _DATABASE,
            Argument(
                "--timeout", metavar="SECONDS", convert=seconds, default=30.0, help="time limit of the whole wait (30s)"
            ),
        ),
        description="Permanent errors, such as a wrong password, end the wait immediately.",
    ),
    "create-tables": Command(
        "create the tables that do not exist yet",
        (
            Argument(
                "metadata", metavar="MODULE:METADATA", help="where the tables are defined, such as shop.models:metadata"
            ),
            Argument("tables", metavar="TABLE", nargs="*", help="tables to create (all)"),
            _DATABASE,
        ),
    ),
    "shell": Command(
        "open the database's own shell: psql, mysql, mariadb, or sqlite3",
        (_PROFILE, _DATABASE),
        ("text",),
        "The password is never on a command line, where other users could read it.",
    ),
    "init": Command(
        "write a config folder with four commented profiles",
        (
            Argument(
                "folder", metavar="FOLDER", nargs="?", default=".", help="the project folder (the working directory)"
            ),
            Argument(
                "--alembic",
                metavar="DIR",
                nargs="?",
                const="migrations",
                help="write migrations too, in DIR (migrations)",
            ),
            Argument("--models", metavar="MODULE", help="the module that the migrations import (app.models)"),
            Argument("--from-env", flag=True, help="connect development to the database in DATABASE_URL"),
            Argument("--fastapi", flag=True, help="write a small FastAPI application and its tests too"),
            Argument("--flask", flag=True, help="write a small Flask application and its tests too"),
        ),
        ("text",),
        "No file is overwritten. With --alembic, --fastapi, or --flask, an existing config folder is left unchanged.",
    ),
    "schema": Command("print the JSON schema of the YAML files, for editors", (), ("json",)),
    "explain": Command(
        "explain a problem or a key: what it means, an example, what to do",
        (Argument("slug", metavar="SLUG", nargs="?", help="the slug in brackets, or a YAML key (list all)"),),
    ),
    "completion": Command(
        "print a script that completes commands, options, and profile names",
        (
            # The scripts themselves call it with `profiles`.
            Argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish", "profiles"), help="bash, zsh or fish"),
        ),
        ("text",),
        'Bash: eval "$(dbconfig completion bash)"',
    ),
}

HELP: Final = Argument("-h", "--help", flag=True, help="show this help message and exit")
VERSION: Final = Argument("--version", flag=True, help="print the version and exit")
_FORMATS: Final = ("text", "json", "github")


def own(command: Command | None) -> list[Argument]:
    """Return the options of a command; of the program itself for None."""
    return [HELP, VERSION] if command is None else [HELP, *command.options]


def common(command: Command | None) -> list[Argument]:
    """Return the options that may come before or after a command."""
    formats = _FORMATS if command is None else command.formats
    text = f"{', '.join(formats[:-1])} or {formats[-1]}" if len(formats) > 1 else formats[0]
    return [
        Argument("--config", metavar="PATH", help="the folder of the profiles (config/)"),
        Argument("--profile", metavar="NAME", help="the profile, instead of the one that ENVIRONMENT names"),
        Argument("--format", choices=formats, help=f"{text} ({formats[0]})"),
        Argument(
            "--color",
            choices=("auto", "always", "never"),
            help="auto follows NO_COLOR, FORCE_COLOR, and the terminal",
        ),
    ]
