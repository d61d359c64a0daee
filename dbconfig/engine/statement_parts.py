"""An SQL text as its statements, without comments and without quoted values.

A quote may occur in a comment and a semicolon in a quoted value, so one pattern reads all of them in one pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dbconfig.errors.late_pattern import late_pattern

_SHORT: Final = 7  # characters of a quoted value that is kept, quotes included: 'false'
_BLOCK: Final = "DO"  # runs the code in its quotes

_DASHES: Final = r"--[^\n]*"
_QUOTED: Final = {
    "postgresql": r"[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|(?P<name>\"(?:[^\"]|\"\")*\")"
    r"|\$(?P<tag>\w*)\$(?P<body>.*?)\$(?P=tag)\$",
    # Two dashes begin a comment if a space follows. The content of /*! ... */ is executed.
    "mysql": r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|(?P<name>`(?:[^`]|``)*`)",
    "sqlite": r"'(?:[^']|'')*'|(?P<name>\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\])",
}
_COMMENT: Final = {
    "postgresql": rf"|{_DASHES}|(?P<nested>/\*)",
    "mysql": r"|#[^\n]*|--(?=\s|$)[^\n]*|(?P<executed>/\*M?!\d*|\*/)|/\*.*?(?:\*/|$)",
    "sqlite": rf"|{_DASHES}|/\*.*?(?:\*/|$)",
}
_TOKENS: Final = {
    system: late_pattern(quoted + _COMMENT[system] + "|(?P<end>;)", re.DOTALL) for system, quoted in _QUOTED.items()
}
_NESTED: Final = late_pattern(r"/\*|\*/")
# What may precede the first word of a text.
_BEFORE: Final = {
    "postgresql": late_pattern(rf"(?:[\s;]|{_DASHES}|/\*.*?\*/)*", re.DOTALL),
    "mysql": late_pattern(r"(?:[\s;]|#[^\n]*|--(?=\s|$)[^\n]*|/\*M?!\d*|\*/|/\*(?!M?!).*?\*/)*", re.DOTALL),
}


def first_word_at(text: str, system: str) -> int:
    """Return the index of the first word of a text, after its comments; `system` is a family of databases."""
    found = _BEFORE[system if system in _BEFORE else "postgresql"].match(text)
    assert found is not None  # it matches the empty text
    return found.end()


def parts(text: str, system: str) -> Iterator[str]:
    """Yield the statements of a text, in order; long quoted values are empty, except for the code of a block."""
    found: list[str] = []
    at, tokens = 0, _TOKENS[system if system in _TOKENS else "postgresql"]
    while token := tokens.search(text, at):
        if found or not text[at : token.start()].isspace():
            found.append(text[at : token.start()])
        at = token.end()
        groups = token.groupdict()
        if groups["end"]:
            yield from _joined(found)
            found = []
        elif groups.get("nested"):
            at = _end_of_comment(text, at)
            found.append(" ")
        elif groups["name"]:
            found.append(groups["name"])
        elif token[0][0] not in "'\"eE$":
            found.append(" ")  # a comment
        elif len(token[0]) <= _SHORT or _is_block(found):
            found.append(groups.get("body") or token[0])
        else:
            found.append("''")
    found.append(text[at:])
    yield from _joined(found)


def _is_block(found: list[str]) -> bool:
    first = next((piece.lstrip() for piece in found if not piece.isspace() and piece), "")
    return first[:2].upper() == _BLOCK and not first[2:3].isalnum()


def _joined(found: list[str]) -> Iterator[str]:
    statement = "".join(found).strip()
    if statement:
        yield statement


def _end_of_comment(text: str, at: int) -> int:
    depth = 1  # PostgreSQL's comments can be nested
    for mark in _NESTED.finditer(text, at):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(text)
