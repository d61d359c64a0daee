"""Environment variables, which override those of a `.env` file, each with its location."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dbconfig.errors import ConfigError
from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import dataclass, field
from dbconfig.errors.problem import Location, Problem
from dbconfig.settings import small_files

# The forms that the shell, compose and python-dotenv share; the word of one has no braces.
_REFERENCE: Final = late_pattern(r"\$\{(?P<name>[A-Za-z_]\w*)(?:(?P<operator>:?[-?+])(?P<word>[^{}]*))?\}", re.ASCII)
_LEFT: Final = late_pattern(r"\$\{(\w*)", re.ASCII)
_SINGLE_QUOTED: Final = late_pattern(r"[^=]*=[ \t]*'")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable as it is set.

    Attributes:
        literal: it is in single quotes in a `.env`, so a `${…}` in it is text.
        missing: unset variables that its `${…}` refer to.
    """

    name: str
    value: str = field(repr=False)
    location: Location
    literal: bool = False
    missing: tuple[str, ...] = ()

    def unexpanded(self) -> str:
        """Return the name of a reference that was not expanded, as after `docker run --env-file`; else ""."""
        match = None if self.literal else _LEFT.search(self.value)
        return next(iter(self.missing), "") or ("" if match is None else match[1] or "…")


def unexpanded(text: str) -> str:
    """Return the name of a `${NAME}` in a text that will not be expanded, or ""."""
    match = _REFERENCE.search(text)
    return "" if match is None else match["name"]


def process() -> Mapping[str, str]:
    """Return the variables of the process."""
    return os.environ


class Environment:
    """The variables of the process over those of a `.env`; nothing is written into `os.environ`."""

    __slots__ = ("_beneath", "_process")

    def __init__(
        self, environ: Mapping[str, str] | None = None, dotenv: Path | None = None, shown: str = ".env"
    ) -> None:
        self._process = os.environ if environ is None else environ
        self._beneath: dict[str, Variable] = {}
        if dotenv is not None and dotenv.exists() and not dotenv.is_dir():  # some virtual environments have this name
            self._beneath = _read(dotenv, shown, self._process)

    def __repr__(self) -> str:
        return f"<environment of {len(self._process)} variables, {len(self._beneath)} beneath>"

    def __reduce__(self) -> tuple[type[Environment], tuple[()]]:
        # Values are not pickled: they may be secret, and another process has its own environment.
        return Environment, ()

    def __iter__(self) -> Iterator[str]:
        yield from self._process
        yield from (name for name in self._beneath if name not in self._process)

    def get(self, name: str) -> Variable | None:
        value = self._process.get(name)
        if value is not None:
            return Variable(name, value, Location("environment", variable=name))
        return self._beneath.get(name)


def _read(path: Path, shown: str, above: Mapping[str, str]) -> dict[str, Variable]:
    found, problems = _parsed(path, shown, above)
    if problems:
        raise ConfigError(problems)
    return found


def _parsed(path: Path, shown: str, above: Mapping[str, str]) -> tuple[dict[str, Variable], list[Problem]]:
    # Returns the problem instead of raising it: a line would be a local variable in a traceback frame.
    found: dict[str, Variable] = {}
    lines, problem = _bindings(path, shown)
    problems = [] if problem is None else [problem]
    for binding in lines:
        at = Location(shown, binding.original.line, variable=binding.key or "")
        if binding.error or (binding.key and binding.value is None):
            problems.append(_bad_line(shown, binding.original.line))
        elif binding.key:
            found[binding.key] = _variable(binding, at, above, found)
    return found, problems


def _bindings(path: Path, shown: str) -> tuple[list[Any], Problem | None]:
    """Return the lines of a `.env`, or the problem."""
    from dotenv.parser import parse_stream  # only if a `.env` exists

    try:
        data = small_files.read(path)
    except small_files.Unreadable as error:
        slug = "too-large" if error.too_large else "file-unreadable"
        help = "a .env file has one NAME=value a line; is this the right file?" if error.too_large else ""
        return [], Problem(slug, f"{shown} cannot be read: {error}", Location(shown), help=help)
    wrong = small_files.undecodable(data)
    if wrong:
        return [], Problem("file-unreadable", f"{shown} cannot be read: {wrong}", Location(shown))
    return list(parse_stream(io.StringIO(data.decode("utf-8-sig"), newline=None))), None


def _variable(binding: Any, at: Location, above: Mapping[str, str], before: Mapping[str, Variable]) -> Variable:
    """Return the variable of a line, its references expanded: by the process's variables, else by earlier lines."""
    text: str = binding.value
    if _SINGLE_QUOTED.match(binding.original.string):
        return Variable(binding.key, text, at, literal=True)
    missing: list[str] = []

    def expanded(match: re.Match[str]) -> str:
        name, operator, word = match["name"], match["operator"] or "", match["word"] or ""
        earlier = before.get(name)
        value = above.get(name, None if earlier is None else earlier.value)
        if earlier is not None and name not in above:
            missing.extend(earlier.missing)
        is_set = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("+"):
            return word if is_set else ""
        if is_set or operator.endswith("-"):
            return value or "" if is_set else word
        missing.append(name)
        return ""

    return Variable(binding.key, _REFERENCE.sub(expanded, text), at, missing=tuple(missing))


def _bad_line(shown: str, line: int) -> Problem:
    # The line is not shown: a line without `=` may be the rest of a multi-line secret.
    help = "quote a value that has spaces or a `#`"
    return Problem("dotenv-syntax", "not a line of the form NAME=value", Location(shown, line), help=help)
