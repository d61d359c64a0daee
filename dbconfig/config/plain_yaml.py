"""Reads the plainest YAML files, mappings of one-line values: PyYAML's import takes longer than loading such a profile.

It gives the events that PyYAML would give, or None for everything that it does not know: lists, flow mappings, anchors,
tags, directives, escapes, text of several lines, and what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_LONGEST_KEY: Final = 128  # a parser may refuse a longer one, from 1024 characters on
# What begins something other than plain text; a `-` may begin a number.
_INDICATORS: Final = frozenset("?:,[]{}#&*!|>'\"%@`")


class Mark:
    """A position, counted from 0."""

    __slots__ = ("column", "line")

    def __init__(self, line: int, column: int) -> None:
        self.line, self.column = line, column


class Event:
    """An event of PyYAML's, as far as it is used; the classes have PyYAML's names."""

    __slots__ = ("end_mark", "start_mark", "style", "value")
    anchor = tag = None

    def __init__(self, line: int, first: int, last: int, value: str = "", style: str = "") -> None:
        self.start_mark, self.end_mark = Mark(line, first), Mark(line, last)
        self.value, self.style = value, style


class StreamStartEvent(Event): ...


class DocumentStartEvent(Event): ...


class ScalarEvent(Event): ...


class MappingStartEvent(Event): ...


class MappingEndEvent(Event): ...


class DocumentEndEvent(Event): ...


class StreamEndEvent(Event): ...


def events(text: str) -> Iterator[Event] | None:
    """Return the events of a text whose lines end with `\\n`; None if PyYAML has to read it."""
    if not text.replace("\n", "").isprintable():  # tabs, and the line breaks of Unicode
        return None
    found: list[Event] = [StreamStartEvent(0, 0, 0), DocumentStartEvent(0, 0, 0)]
    indents = [-1]  # of the open mappings; no line has the first one
    opens = True  # a mapping has to follow: the document's own, or that of a key without a value
    for number, line in enumerate(text.split("\n")):
        bare = line.lstrip(" ")
        if not bare or bare.startswith("#"):
            continue
        indent = len(line) - len(bare)
        if opens and indent > indents[-1]:
            indents.append(indent)
            found.append(MappingStartEvent(number, indent, indent))
        elif opens or indent > indents[-1]:
            return None  # a key without a value, or text that continues
        while indent < indents[-1]:
            indents.pop()
            found.append(MappingEndEvent(number, indent, indent))
        colon = line.find(":")
        if indent != indents[-1] or colon < 0 or not _is_key(line[indent:colon]):
            return None
        if line[colon + 1 : colon + 2] not in ("", " "):
            return None
        found.append(ScalarEvent(number, indent, colon, line[indent:colon]))
        first = len(line) - len(line[colon + 1 :].lstrip(" "))
        opens = first == len(line) or line[first] == "#"
        if not opens:
            value = _quoted(number, line, first) if line[first] in "'\"" else _unquoted(number, line, first)
            if value is None:
                return None
            found.append(value)
    if opens:
        return None
    found += [MappingEndEvent(0, 0, 0) for _ in indents[1:]]
    return iter([*found, DocumentEndEvent(0, 0, 0), StreamEndEvent(0, 0, 0)])


def _is_key(text: str) -> bool:
    return text[:1].isalpha() and len(text) < _LONGEST_KEY and text.replace("_", "").replace("-", "").isalnum()


def _unquoted(number: int, line: str, first: int) -> Event | None:
    value = line[first:].partition(" #")[0].rstrip(" ")
    if value[0] in _INDICATORS or (value[0] == "-" and not value[1:2].isalnum()):
        return None
    if ": " in value or value.endswith(":"):
        return None
    return ScalarEvent(number, first, first + len(value), value)


def _quoted(number: int, line: str, first: int) -> Event | None:
    quote = line[first]
    last = line.find(quote, first + 1)
    rest = line[last + 1 :]
    if last < 0 or not (not rest.strip(" ") or (rest[0] == " " and rest.lstrip(" ")[0] == "#")):
        return None
    value = line[first + 1 : last]
    return None if "\\" in value else ScalarEvent(number, first, last + 1, value, quote)
