"""Exceptions, and the problems that they carry."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from dbconfig.errors.problem import BUILT_IN, Location, Problem, SourceText, render

__all__ = [
    "BUILT_IN",
    "ConfigError",
    "DBConfigError",
    "Location",
    "Problem",
    "ProfileNotFound",
    "SourceText",
    "render",
]


class DBConfigError(Exception):
    """Base class of dbconfig's own errors; errors of SQLAlchemy and the drivers keep their types."""


class ConfigError(DBConfigError, ValueError):
    """An invalid configuration, with every problem that was found in it.

    Attributes:
        problems: all of them, sorted by position.
    """

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        """Accept the problems, or only their text, from which result backends recreate an error sent as JSON."""
        if isinstance(problems, str):
            self.problems: tuple[Problem, ...] = ()
            super().__init__(problems)
            return
        from dbconfig.errors.problem import position_of

        self.problems = tuple(sorted(problems, key=position_of))
        super().__init__("\n\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems or str(self),), self.__dict__


class ProfileNotFound(ConfigError):
    """The requested profile does not exist, or its name is invalid."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dbconfig.errors import problem

    return getattr(problem, name)
