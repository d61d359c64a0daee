"""Explains the YAML parser's errors to the author of the file."""

from __future__ import annotations

import re
from typing import Final

import yaml

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.settings.located_values import Source

_NOT_CLOSED = late_pattern("could not find expected ':'|unexpected end of stream|expected ',' or")
_KEY: Final = late_pattern(r"\s*[\w.-]+:\s+\S")
_QUOTE: Final = "put the value in quotes: '…'"
_NO_ESCAPES: Final = "use '…', in which `\\` is plain text: 'sqlite:///C:\\data\\app.db'"
# Pieces of libyaml's messages, and of PyYAML's own, which differ in words.
_MEANINGS: Final = (
    ("end of stream", "the quotation mark that opens here is never closed", "close it; within '…' a ' is written ''"),
    ("could not find expected ':'", "a key needs a colon and a space before its value", "write `key: value`"),
    ("expected ',' or", "a flow mapping or list is not closed: `}` or `]` is missing", f"close it, or {_QUOTE}"),
    (
        "mapping values are not allowed",
        "a `:` at the end of a value, or before a space in it, starts a mapping",
        _QUOTE,
    ),
    ("cannot start any token", "a value cannot start with this character: in YAML it cannot start any token", _QUOTE),
    *(
        (piece, 'a `\\` in "…" begins an escape sequence, and this is not one', _NO_ESCAPES)
        for piece in ("escape", "hexdec", "hexadec")
    ),
    ("chomping or indentation", "after `|` or `>` the text starts on the next line", _QUOTE),
    ("comment or line break", "after `|` or `>` the text starts on the next line", _QUOTE),
    ("sequence entries are not allowed", "a `-` and a space start a list, which is not allowed here", _QUOTE),
    ("mapping keys are not allowed", "a `?` and a space start a key, which is not allowed here", _QUOTE),
    ("expected node content", "a value cannot start like this", _QUOTE),
    ("expected key", "this line matches neither the indentation nor the quotation marks above it", "indent keys alike"),
    (
        "expected <block end>",
        "this line matches neither the indentation nor the quotation marks above it",
        "indent keys alike",
    ),
    ("undefined tag handle", "a value cannot start with `!`, which makes it a tag", _QUOTE),
)


def explained(error: yaml.MarkedYAMLError, source: Source) -> tuple[int, int, str, str]:
    """Return the line and column (from 1) of the error, the problem, and the remedy; never a part of the text."""
    problem = str(error.problem or error.context)
    # For an unclosed construct, the parser reports where it gave up; the error is where the construct begins.
    mark, opened = error.problem_mark, error.context_mark
    if mark and opened and opened.line < mark.line and _NOT_CLOSED.search(problem):
        mark = opened
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    written = source.line(line)
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return line, written.index("\t") + 1, "a tab cannot indent YAML", "indent with spaces"
    if re.search("hexa?dec", problem):
        column = written.rfind("\\", 0, column - 1) + 1  # the mark is where the digits end
    above = source.line(line - 1)
    if "mapping values are not allowed" in problem and _is_indented_key(written, above):
        return (
            line,
            len(written) - len(written.lstrip()) + 1,
            "this key is indented, but not part of the key above it",
            ("start it in the same column as the other keys"),
        )
    for piece, message, help in _MEANINGS:
        if piece in problem:
            return line, column, message, help
    # PyYAML's own scanner, unlike libyaml's, includes the text that it found.
    return line, column, re.sub(r"(['\"]).*\1", "…", problem) or "not YAML", ""


def _is_indented_key(written: str, above: str) -> bool:
    """Return whether a line is `key: value`, indented below another `key: value`."""
    return bool(_KEY.match(written)) and bool(_KEY.match(above)) and _indent(written) > _indent(above)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
