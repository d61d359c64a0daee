"""The renderer: aligned text, JSON with a schema id, and problems; in color only on a terminal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from dbconfig.errors.printable import Palette, display_width, harmless, printable
from dbconfig.errors.problem import Location, Problem, render


def wants_colour(choice: str, environ: Mapping[str, str], stream: TextIO) -> bool:
    """Decide by `--color`, then NO_COLOR, then FORCE_COLOR, then whether the stream is a terminal."""
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):  # https://no-color.org: present and not empty
        return False
    if environ.get("FORCE_COLOR"):
        return environ["FORCE_COLOR"] != "0"
    return stream.isatty() and environ.get("TERM") != "dumb"


class Output:
    """The output of a command: results to stdout, diagnostics to stderr."""

    def __init__(self, format: str, color: str, environ: Mapping[str, str]) -> None:
        self.format = format
        is_text = format == "text"
        self.paint: Palette = Palette(is_text and wants_colour(color, environ, sys.stdout))
        self._paint_diagnostics = Palette(is_text and wants_colour(color, environ, sys.stderr))

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Write a line; a part that is a pair is written in the color of its first item."""
        painted = (
            harmless(part) if isinstance(part, str) else self.paint(part[0], harmless(part[1])) for part in parts
        )
        sys.stdout.write("".join(painted) + "\n")

    def block(self, text: str) -> None:
        """Write a multi-line text."""
        for line in text.split("\n"):
            self.line(line)

    def note(self, text: str) -> None:
        sys.stderr.write(f"{harmless(text)}\n")
        sys.stderr.flush()

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Write the library's warnings as notes: its records may quote the content of a file."""
        handler = _Notes(self)
        logger = logging.getLogger("dbconfig")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def table(self, rows: Sequence[Sequence[str]], header: Sequence[str] = (), indent: str = "") -> None:
        """Write rows in columns; the last one is not padded."""
        rows = [[harmless(printable(cell, 10_000)) for cell in row] for row in rows]
        widths = [max((display_width(row[i]) for row in [header, *rows] if i < len(row)), default=0) for i in range(20)]
        if header:
            self.line(("bold", (indent + _padded(header, widths)).rstrip()))
        for row in rows:
            self.line((indent + _padded(row, widths)).rstrip())

    def json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write a document; `name` and its version are its schema id, and its keys are stable."""
        sys.stdout.write(_json({"schema": f"dbconfig/{name}/1", **data}))

    def problems(self, problems: Iterable[Problem]) -> None:
        """Write problems to stderr, as text or as GitHub's annotations; in JSON as a separate document."""
        found = list(problems)
        if self.format == "json":
            document = {"schema": "dbconfig/problems/1", "problems": [described(problem) for problem in found]}
            sys.stdout.write(_json(document))
            return
        sys.stdout.flush()  # the problem appears below its step, even if both are written to one file
        for problem in found:
            if self.format == "github":
                sys.stdout.write(annotation(problem) + "\n")
            else:
                sys.stderr.write(render(problem, self._paint_diagnostics) + "\n\n")
        if any(problem.severity == "error" for problem in found) and self.format == "text":
            slugs = dict.fromkeys(problem.slug for problem in found)
            self.note(f"more: {', '.join(f'dbconfig explain {slug}' for slug in slugs)}")
            self.note("")


class _Notes(logging.Handler):
    def __init__(self, out: Output) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        self._out.note(f"{record.levelname.lower()}: {record.getMessage()}")


def _json(document: Mapping[str, Any]) -> str:
    # ASCII: escapes all terminal control characters except DEL, and the commands of CI systems.
    text = json.dumps(document, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")
    return text.replace("##[", "#\\u0023[").replace("##vso[", "#\\u0023vso[") + "\n"


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell + " " * (widths[i] - display_width(cell)) for i, cell in enumerate(row))


def counted(number: int, what: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "problem"), counted(2, "problem")
    ('1 problem', '2 problems')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def placed(location: Location | None) -> dict[str, Any] | None:
    """Return a location for JSON."""
    if location is None:
        return None
    return {
        "source": location.source,
        "line": location.line,
        "column": location.column,
        "variable": location.variable or None,
    }


def described(problem: Problem) -> dict[str, Any]:
    """Return a problem for JSON."""
    return {
        "slug": problem.slug,
        "severity": problem.severity,
        "message": problem.message,
        "key": problem.key or None,
        "location": placed(problem.location),
        "help": problem.help or None,
        "notes": list(problem.notes),
    }


def annotation(problem: Problem) -> str:
    """Return a problem as a GitHub workflow command; what its syntax uses is escaped."""
    # https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    parts = {"title": f"dbconfig[{problem.slug}]"}
    if problem.location is not None and problem.location.line:
        parts = {"file": problem.location.source, "line": str(problem.location.line), **parts}
        if problem.location.column:
            parts["col"] = str(problem.location.column)
    properties = ",".join(f"{name}={_escaped(harmless(value), ':,')}" for name, value in parts.items())
    text = harmless(problem.message) + (f"\nhelp: {harmless(problem.help)}" if problem.help else "")
    return f"::{problem.severity} {properties}::{_escaped(text)}"


def _escaped(text: str, further: str = "") -> str:
    for ch in "%\r\n" + further:
        text = text.replace(ch, f"%{ord(ch):02X}")
    return text
