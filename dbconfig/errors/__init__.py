"""Exceptions, and the problems that they carry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dbconfig.errors.printable import display_width, printable, quoted
from dbconfig.errors.problem import BUILT_IN, Location, Problem, SourceText, position_of, render

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


class DBConfigError(Exception):
    """Base of every error that is dbconfig's own; what SQLAlchemy and the drivers raise keeps its type."""


class ConfigError(DBConfigError, ValueError):
    """A configuration that cannot be used, with every problem that was found in it.

    Attributes:
        problems: all of them, sorted by position.
    """

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        """Take the problems; or only their text, from which result backends make an error that came as JSON."""
        if isinstance(problems, str):
            self.problems: tuple[Problem, ...] = ()
            super().__init__(problems)
            return
        self.problems = tuple(sorted(problems, key=position_of))
        super().__init__("\n\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems or str(self),), self.__dict__


class ProfileNotFound(ConfigError):
    """The profile that was asked for does not exist, or its name cannot be a profile's."""
