"""What goes wrong, said so that a person can mend it: the exceptions, a problem, and the place where it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol
from unicodedata import east_asian_width

WIDTH = 160  # of a line of a file in a message
SHOWN_AT_MOST = 80  # characters of a foreign text in a message: enough to recognise it, too little to flood a log


class SourceText(Protocol):
    """The text that a location points into."""

    def excerpt(self, line: int) -> str:
        """Return the line without the values that may not be shown."""

    def column(self, line: int, column: int) -> int:
        """Return where a column of the line stands in its excerpt."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a value was written: a place in a file, or an environment variable.

    Lines and columns count from 1. `str()` is what a person reads: ``config/production.yaml:4:1``.
    """

    source: str
    line: int | None = None
    column: int | None = None
    variable: str = ""
    width: int = field(default=1, compare=False, repr=False)
    text: SourceText | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)
        return f"{self.variable}, {place}" if self.variable else place

    @property
    def position(self) -> tuple[str, int, int, str]:
        return (self.source, self.line or 0, self.column or 0, self.variable)


BUILT_IN = Location("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        slug: stable name of the kind of problem, an entry of `CATALOGUE`.
        message: what is wrong, in one line.
        location: where it stands, if it stands anywhere.
        key: the dotted path of the key.
        help: what to do about it.
        notes: further facts: where a value came from, what exists.
        label: words beside the caret.
    """

    slug: str
    message: str
    location: Location | None = None
    key: str = ""
    help: str = ""
    notes: tuple[str, ...] = ()
    label: str = ""

    def __str__(self) -> str:
        return render(self)


class DBConfigError(Exception):
    """Base of every error that is dbconfig's own; what SQLAlchemy and the drivers raise keeps its type."""


class ConfigError(DBConfigError, ValueError):
    """A configuration that cannot be used, with every problem that was found in it.

    Attributes:
        problems: all of them, sorted by position.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=_position))
        super().__init__("\n\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


class ProfileNotFound(ConfigError):
    """The profile that was asked for does not exist, or its name cannot be a profile's."""


def _position(problem: Problem) -> tuple[str, int, int, str]:
    return problem.location.position if problem.location is not None else ("", 0, 0, "")


def printable(text: str, limit: int = SHOWN_AT_MOST) -> str:
    """Return foreign text as it may stand in a terminal or a log: no control character, cut when long."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode("ascii") for ch in cut)


def quoted(text: str) -> str:
    return f"'{printable(text)}'"


def render(problem: Problem) -> str:
    """Return the problem as text: what, where with the source line and a caret, notes and help."""
    lines = [f"error[{problem.slug}]: {problem.message}"]
    location = problem.location
    gutter = len(str(location.line)) if location is not None and location.line else 1
    if location is not None:
        lines.append(f"{' ' * gutter} --> {location}" + (f"  ({printable(problem.key)})" if problem.key else ""))
        lines += _excerpt(location, problem.label, gutter)
    elif problem.key:
        lines.append(f"{' ' * gutter} --> {printable(problem.key)}")
    lines += [f"{' ' * gutter} = note: {note}" for note in problem.notes]
    if problem.help:
        lines.append(f"{' ' * gutter} = help: {problem.help}")
    return "\n".join(lines)


def _excerpt(location: Location, label: str, gutter: int) -> list[str]:
    if location.text is None or location.line is None or location.column is None:
        return []
    empty = f"{' ' * gutter} |"
    lines = [empty]
    previous = location.text.excerpt(location.line - 1)
    if previous.strip():
        lines.append(f"{location.line - 1:>{gutter}} | {printable(previous.expandtabs(4), WIDTH)}".rstrip())
    marked, column = location.text.excerpt(location.line), location.text.column(location.line, location.column)
    before, after = marked[: column - 1].expandtabs(4), marked[column - 1 :].expandtabs(4)
    if len(before) > WIDTH // 2:  # of a long line the part that is meant
        before = "…" + before[1 - WIDTH // 2 :]
    lines.append(f"{location.line:>{gutter}} | {printable(before, WIDTH)}{printable(after, WIDTH // 2)}".rstrip())
    start = display_width(before)
    carets = "^" * max(1, min(location.width, 120))
    return [*lines, f"{empty} {' ' * start}{carets} {label}".rstrip(), empty]


def display_width(text: str) -> int:
    """Return how many terminal cells a text takes: East Asian wide characters take two."""
    return sum(2 if east_asian_width(ch) in "WF" else 1 for ch in text)


CATALOGUE: dict[str, str] = {
    "alias-bomb": "the aliases of a file expand to more values than any configuration has",
    "ambiguous-value": "a bare value that YAML versions read differently: 010, 1:30, no, a date",
    "async-driver": "an asynchronous driver was named for a synchronous engine",
    "bad-reference": "a ${…} reference that cannot be read",
    "database-elsewhere": "another profile protects the database that this profile points at",
    "dotenv-syntax": "a line of a .env file that is not NAME=value",
    "duplicate-key": "one key twice in one mapping",
    "empty-value": "a key without a value",
    "empty-variable": "an environment variable is set, but empty",
    "extends-cycle": "profiles extend each other in a circle",
    "file-unreadable": "a file exists, but cannot be read as a configuration",
    "given-twice": "two keys say the same thing",
    "invalid-url": "a URL that is no database URL",
    "invalid-value": "a value that is not one of those the key takes",
    "missing-driver": "the driver of the database is not installed",
    "missing-value": "a key that is needed is not there",
    "no-config": "there is no configuration folder",
    "not-applicable": "a key that cannot act on this kind of database or pool",
    "out-of-range": "a number below or above what makes sense",
    "profile-name": "a profile name that is no safe file name",
    "protected": "a destructive command on a protected database",
    "provider-failed": "a password provider raised an error, hung, or returned no password",
    "secret-unreadable": "a secret cannot be read from where the profile says",
    "too-large": "a file that is larger than any configuration",
    "unknown-database": "a database name that the profile does not have",
    "unknown-dialect": "a database system that is not supported",
    "unknown-key": "a key that is not a setting",
    "unknown-profile": "a profile that has no file",
    "unknown-provider": "a password provider that nobody registered",
    "unknown-table": "a table name that no imported model has",
    "unset-variable": "a ${…} names an environment variable that is not set",
    "wrong-type": "a value of another type than the key takes",
    "yaml-syntax": "a file that is not YAML",
    "yaml-tag": "a YAML tag: configuration is data and never names code",
}
