"""What goes wrong, said so that a person can mend it: the exceptions, a problem, and the place where it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dbconfig.rendering import display_width, printable, render

__all__ = [
    "BUILT_IN",
    "ConfigError",
    "DBConfigError",
    "Location",
    "Problem",
    "ProfileNotFound",
    "SourceText",
    "display_width",
    "printable",
    "quoted",
    "render",
]


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
        slug: stable name of the kind of problem, an entry of the catalogue.
        message: what is wrong, in one line.
        location: where it stands, if it stands anywhere.
        key: the dotted path of the key.
        help: what to do about it.
        notes: further facts: where a value came from, what exists.
        label: words beside the caret.
        also: further places that take part, each with its words: the first of two keys, the URL that says otherwise.
        severity: a warning refuses nothing.
    """

    slug: str
    message: str
    location: Location | None = None
    key: str = ""
    help: str = ""
    notes: tuple[str, ...] = ()
    label: str = ""
    also: tuple[tuple[Location, str], ...] = ()
    severity: Literal["error", "warning"] = "error"

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


def quoted(text: str) -> str:
    return f"'{printable(text)}'"
