"""Environment variables, with a `.env` file beneath them, each knowing where it was set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dbconfig.errors import ConfigError, Location, Problem


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    value: str = field(repr=False)
    location: Location


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
        # Values are not carried along: a pickle of a profile holds no secret, and another process has an environment of its own.
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
    try:
        with path.open(encoding="utf-8-sig") as file:
            for binding in parse_stream(file):
                at = Location(shown, binding.original.line, variable=binding.key or "")
                if binding.error or (binding.key and binding.value is None):
                    problems.append(
                        Problem(
                            "yaml-syntax",
                            "not a line of the form NAME=value",
                            at,
                            help="quote a value that has spaces or a `#`",
                        )
                    )
                elif binding.key and binding.value is not None:
                    found[binding.key] = Variable(binding.key, binding.value, at)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([Problem("file-unreadable", f"it cannot be read: {reason}", Location(shown))]) from None
    if problems:
        raise ConfigError(problems)
    return found
