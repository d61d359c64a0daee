"""What the YAML parser's complaints mean to the person who wrote the file."""

from __future__ import annotations

import re
from typing import Final

import yaml

_NOT_CLOSED = re.compile("could not find expected ':'|unexpected end of stream|expected ',' or")
_QUOTE: Final = "put the value in quotes: '…'"
# Pieces of libyaml's messages, and of PyYAML's own, which differ in words.
_MEANINGS: Final = (
    ("end of stream", "a quotation mark is opened here and never closed", "close it; within '…' a ' is written ''"),
    ("could not find expected ':'", "a key needs a colon and a space before its value", "write `key: value`"),
    ("expected ',' or", "a flow mapping or list is not closed: `}` or `]` is missing", f"close it, or {_QUOTE}"),
    (
        "mapping values are not allowed",
        "a `:` at the end of a value, or before a blank in it, begins a mapping",
        _QUOTE,
    ),
    ("cannot start any token", "a value cannot begin with this character: in YAML it cannot start any token", _QUOTE),
    (
        "unknown escape character",
        'a `\\` in "…" begins an escape, and this is none',
        "use '…', where `\\` is plain text",
    ),
    ("chomping or indentation", "behind `|` or `>` the text begins on the next line", _QUOTE),
    ("comment or line break", "behind `|` or `>` the text begins on the next line", _QUOTE),
    ("sequence entries are not allowed", "a `-` and a blank begin a list, which cannot stand here", _QUOTE),
    ("mapping keys are not allowed", "a `?` and a blank begin a key, which cannot stand here", _QUOTE),
    ("expected node content", "a value cannot begin like this", _QUOTE),
    ("expected key", "this line fits neither the indentation nor the quotation marks above it", "indent keys alike"),
    (
        "expected <block end>",
        "this line fits neither the indentation nor the quotation marks above it",
        "indent keys alike",
    ),
    ("undefined tag handle", "a value cannot begin with `!`: it makes a tag of it", _QUOTE),
)


def explained(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[int, int, str, str]:
    """Return line and column (from 1) of what is at fault, what is wrong there, and what to do; nothing of the text."""
    problem = str(error.problem or error.context)
    # Where something was never closed, the parser marks the place where it gave up; at fault is where it began.
    mark, opened = error.problem_mark, error.context_mark
    if mark and opened and opened.line < mark.line and _NOT_CLOSED.search(problem):
        mark = opened
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return line, written.index("\t") + 1, "a tab cannot indent YAML", "indent with spaces"
    for piece, message, help in _MEANINGS:
        if piece in problem:
            return line, column, message, help
    # PyYAML's own scanner, unlike libyaml's, repeats what it found.
    return line, column, re.sub(r"(['\"]).*\1", "…", problem) or "not YAML", ""
