"""Environment variables, with a `.env` file beneath them, each knowing where it was set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Location, Problem


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    value: str = field(repr=False)
    location: Location


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
        self._beneath: dict[str, Variable] = _read(dotenv, shown) if dotenv is not None and dotenv.is_file() else {}

    def __repr__(self) -> str:
        return f"<environment of {len(self._process)} variables, {len(self._beneath)} beneath>"

    def __reduce__(self) -> tuple[type[Environment], tuple[()]]:
        # Values are not carried along: they may be secret, and another process has an environment of its own.
        return Environment, ()

    def __iter__(self) -> Iterator[str]:
        yield from self._process
        yield from (name for name in self._beneath if name not in self._process)

    def get(self, name: str) -> Variable | None:
        value = self._process.get(name)
        if value is not None:
            return Variable(name, value, Location("environment", variable=name))
        return self._beneath.get(name)


def _read(path: Path, shown: str) -> dict[str, Variable]:
    from dotenv.parser import parse_stream  # only where there is a `.env`

    found: dict[str, Variable] = {}
    problems = []
    unreadable = ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for binding in parse_stream(file):
                at = Location(shown, binding.original.line, variable=binding.key or "")
                if binding.error or (binding.key and binding.value is None):
                    problems.append(_bad_line(shown, binding.original.line))
                elif binding.key and binding.value is not None:
                    found[binding.key] = Variable(binding.key, binding.value, at)
    except OSError as error:
        unreadable = str(error.strerror)
    except UnicodeDecodeError:
        unreadable = "it is not UTF-8"
    if (
        unreadable
    ):  # not within `except`: the error of the decoder holds the text of the file, and would be ours' context
        problems = [Problem("file-unreadable", f"it cannot be read: {unreadable}", Location(shown))]
    if problems:
        raise ConfigError(problems)
    return found


def _bad_line(shown: str, line: int) -> Problem:
    # Nothing of the line is repeated: a line without `=` may be the rest of a secret that has line breaks.
    help = "quote a value that has spaces or a `#`"
    return Problem("dotenv-syntax", "not a line of the form NAME=value", Location(shown, line), help=help)
