"""Values of a configuration that remember where they were written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import dataclass, field
from dbconfig.errors.problem import Location
from dbconfig.errors.redaction import MASK, is_secret_name, shown

_PROPERTIES = late_pattern(r"^(?:[!&][\w!.-]*[ \t]+){1,2}", re.ASCII)
_COMMENT = late_pattern(r"[ \t]+#[^ \t#]")
_UNPARSED_KEY = late_pattern(r"(\s*(?:[-?] )?\s*([\w.-]+)\s*:)(.*)")


class Source:
    """The text of one file, for excerpts in messages; neither printed nor pickled, since it may contain secrets."""

    __slots__ = ("_lines", "_secrets", "_spans", "_text", "parsed", "shown")

    def __init__(self, shown: str, text: str = "") -> None:
        self.shown: str = shown
        self.parsed: bool = False
        self._text = text
        self._lines = text.splitlines()
        # By line: the positions of its values, with their keys and values.
        self._spans: dict[int, dict[tuple[int, int], tuple[str, str]]] = {}
        self._secrets: set[str] = set()

    def __repr__(self) -> str:
        return f"<text of {self.shown}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Source, (self.shown,)

    def __deepcopy__(self, memo: object) -> Source:
        return self

    def whole(self) -> str:
        """Return the text; do not keep it in a local variable, which error reporters print."""
        return self._text

    def line(self, number: int) -> str:
        """Return a line as written, counted from 1, or ""."""
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def find(self, pattern: re.Pattern[str]) -> tuple[int, int, str] | None:
        """Return line and column (from 1) and the text of the first match of a pattern."""
        match = pattern.search(self._text)
        if match is None:
            return None
        begin = self._text.rfind("\n", 0, match.start()) + 1
        return self._text.count("\n", 0, begin) + 1, match.start() - begin + 1, match[0]

    def remember(self, key: str, text: str, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Record the position of a value (lines and columns from 0), so that an excerpt can mask it."""
        if is_secret_name(key) and len(text) > 3:
            self._secrets.add(text)
        for line in range(start[0], end[0] + 1):
            first = start[1] if line == start[0] else 0
            last = end[1] if line == end[0] else -1
            found = self._spans.setdefault(line, {})
            if (first, last) not in found or is_secret_name(key):
                found[first, last] = (key, text if start[0] == end[0] else "")

    def cuts_secret(self, line: int) -> bool:
        """Return whether ` #` without a space follows a secret on a line (from 1): a comment, or part of it."""
        ends = (
            last for (_, last), (key, _) in self._spans.get(line - 1, {}).items() if last > 0 and is_secret_name(key)
        )
        return any(_COMMENT.match(self._lines[line - 1], last) for last in ends)

    def excerpt(self, line: int) -> str:
        """Return a line without the values that may not be shown, and without its comment."""
        return "".join(shown for _, shown in self._pieces(line)).rstrip()

    def column(self, line: int, column: int) -> int:
        """Return the position of a column of a line (from 1) in its excerpt, since masks have a different width."""
        position = shift = 0
        for written, visible in self._pieces(line):
            if column - 1 < position + len(written):
                return position + shift + 1 if written != visible else column + shift
            position += len(written)
            shift += len(visible) - len(written)
        return column + shift

    def _pieces(self, line: int) -> list[tuple[str, str]]:
        """Return a line in pieces: the text of each, and what may be shown of it."""
        if not 0 < line <= len(self._lines):
            return []
        text, spans = self._lines[line - 1], sorted(self._spans.get(line - 1, {}).items())
        if not spans:
            return self._unparsed(text)
        pieces, position = [], 0
        for (first, last), (key, value) in spans:
            stop = len(text) if last < 0 else last
            if first >= position:
                pieces += [(text[position:first],) * 2, (text[first:stop], self._masked(text[first:stop], key, value))]
                position = stop
        tail = re.split(r"(?:^|\s)#", text[position:])[0]
        return [*pieces, (text[position:], tail if self.parsed else re.sub(r"[^:,}\]].*", "", tail))]

    def _unparsed(self, text: str) -> list[tuple[str, str]]:
        bare = re.split(r"(?:^|\s)#", text)[0].rstrip()
        match = _UNPARSED_KEY.match(bare)
        if not match:
            return [(text, MASK if re.search(r"\w", bare) else bare)]
        blank = match[3][: len(match[3]) - len(match[3].lstrip())]
        value = match[3].strip()
        return [(match[1] + blank,) * 2, (value, shown(match[2], value, self._secrets) if value else "")]

    def _masked(self, written: str, key: str, value: str) -> str:
        if not written:
            return ""
        visible = shown(key, value, self._secrets) if value else MASK
        # A tag or an anchor before the value is shown, unless by the key it may be part of a secret.
        bare = written if is_secret_name(key) else _PROPERTIES.sub("", written)
        return written if visible == value and bare in (value, f"'{value}'", f'"{value}"') else visible


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: its meaning, how it was written, and where.

    Attributes:
        value: str, int, float, bool or None, by the rules of YAML 1.2's core schema; later, the converted value.
        written: the characters of the file.
        ambiguity: its meaning in YAML 1.1, if that differs ("a boolean", "a date"), else "".
        variables: the environment variables that it contains.
    """

    value: Any
    location: Location
    written: str = field(default="", repr=False)
    ambiguity: str = ""
    variables: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<value at {self.location}>"


@dataclass(frozen=True, slots=True)
class SequenceNode:
    items: tuple[Node, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value, and the entry of a lower layer that it overrides."""

    node: Node
    key: Location
    beneath: Entry | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A mapping; its entries are in the order of the file."""

    entries: Mapping[str, Entry]
    location: Location

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def get(self, key: str) -> Entry | None:
        return self.entries.get(key)


Node = Scalar | SequenceNode | MappingNode


def places(tree: MappingNode) -> dict[tuple[str, ...], tuple[Location, ...]]:
    """Return where each key was written, by its path: the effective location first, then the overridden ones."""
    found: dict[tuple[str, ...], tuple[Location, ...]] = {}

    def walk(node: MappingNode, path: tuple[str, ...]) -> None:
        for key, entry in node.entries.items():
            places: list[Location] = []
            below: Entry | None = entry
            while below is not None:
                places.append(below.key)
                below = below.beneath
            found[(*path, key)] = tuple(places)
            if isinstance(entry.node, MappingNode):
                walk(entry.node, (*path, key))
            elif isinstance(entry.node, SequenceNode):
                for number, item in enumerate(entry.node.items):
                    if isinstance(item, MappingNode):
                        walk(item, (*path, key, str(number)))

    walk(tree, ())
    return found
