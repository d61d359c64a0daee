"""A YAML file as values that remember where they stand."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from dbconfig.errors import ConfigError, Location, Problem, quoted
from dbconfig.nodes import Entry, MappingNode, Node, Scalar, SequenceNode, Source
from dbconfig.scalars import resolve

SIZE_LIMIT: Final = 256 * 1024  # bytes; the largest configuration seen in public code has 40 kB
VALUE_LIMIT: Final = 10_000  # values of one file with its aliases written out: a bomb has billions
DEPTH_LIMIT: Final = 32

# The C loader is seven times faster and gives the same positions; wheels of every platform have it, a source build may not.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def read(path: Path, shown: str) -> tuple[MappingNode, list[Problem]]:
    """Read a YAML file whose root is a mapping; return it with the problems that leave the rest readable (a key twice, a tag).

    Args:
        path: the file.
        shown: its name in messages.

    Raises:
        ConfigError: the file cannot be read, or is not YAML, or no configuration by its size.
    """
    return parse(_decoded(_bytes(path, shown), shown), shown)


def parse(text: str, shown: str) -> tuple[MappingNode, list[Problem]]:
    """Return the root mapping of a YAML text; `read` says what is refused."""
    source = Source(shown, text)
    match = _CONTROL.search(text)
    if match:
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1
        _refuse("yaml-syntax", f"control character #x{ord(match[0]):04x} is not allowed in YAML", source, line, column)
    composer = _Composer(source)
    root = composer.compose(text)
    if isinstance(root, MappingNode):
        return root, composer.problems
    if isinstance(root, Scalar) and root.value is None:
        _refuse("missing-value", "the file is empty: there are no settings in it", source, help="give at least `url:`")
    _refuse(
        "wrong-type",
        "the file must be a mapping of keys to values",
        source,
        root.location.line,
        root.location.column,
        help="write `url: …` and the other settings as `key: value`, one a line",
    )


def _refuse(
    slug: str, message: str, source: Source, line: int | None = None, column: int | None = None, help: str = ""
) -> NoReturn:
    # `from None`: the parser's own error can carry a piece of the text.
    raise ConfigError([Problem(slug, message, Location(source.shown, line, column, text=source), help=help)]) from None


def _bytes(path: Path, shown: str) -> bytes:
    source = Source(shown)
    try:
        # Without O_NONBLOCK the open of a FIFO would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                _refuse("file-unreadable", "not a regular file", source, help="a profile is a plain YAML file")
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        reason = {
            errno.EACCES: "permission to read it is denied",
            errno.ELOOP: "its symbolic links form a loop",
            errno.EISDIR: "it is a folder, not a regular file",
        }.get(error.errno or 0, f"it cannot be read: {error.strerror}")
        _refuse("file-unreadable", f"{quoted(shown)}: {reason}", source)
    if len(data) > SIZE_LIMIT:
        _refuse(
            "too-large",
            f"larger than {SIZE_LIMIT // 1024} KiB",
            source,
            help="configuration is small; is this the right file?",
        )
    return data


def _decoded(data: bytes, shown: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _refuse(
            "yaml-syntax",
            "the file is not UTF-8: a character cannot be decoded",
            Source(shown),
            line,
            help="save it with the encoding UTF-8",
        )
    if text.count("\0") > len(text) // 4:
        _refuse("yaml-syntax", "the encoding looks like UTF-16: save the file as UTF-8", Source(shown))
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Composer:
    """Builds nodes from parser events: without recursion in C, with our scalars, and with limits."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._values = 0

    def compose(self, text: str) -> Node:
        self._loader = _Loader(text)
        try:
            self._next()  # stream start
            start = self._next()
            if isinstance(start, yaml.StreamEndEvent):
                return Scalar(None, Location(self.source.shown, text=self.source))
            root = self._node(self._next(), "", 0)
            self._next()  # document end
            end = self._next()
            if not isinstance(end, yaml.StreamEndEvent):
                mark = end.start_mark
                _refuse(
                    "yaml-syntax",
                    "a second document (`---`) begins here",
                    self.source,
                    mark.line + 1,
                    mark.column + 1,
                    "one file is one document",
                )
            self.source.parsed = True
            return root
        except yaml.MarkedYAMLError as error:
            self._syntax_error(error, text)
        finally:
            self._loader.dispose()

    def _next(self) -> Any:
        return self._loader.get_event()

    def _node(self, event: Any, key: str, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._count(1, event)
        if depth > DEPTH_LIMIT:
            mark = event.start_mark
            _refuse(
                "too-large", f"nested more than {DEPTH_LIMIT} levels deep", self.source, mark.line + 1, mark.column + 1
            )
        self._check_tag(event, key)
        if event.anchor:
            self._anchors[event.anchor] = None  # open: an alias to it now would be recursive
        before, node = self._values, self._content(event, key, depth)
        if event.anchor:
            self._anchors[event.anchor] = (node, self._values - before + 1)
        return node

    def _content(self, event: Any, key: str, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, key)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event_ := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(event_, key, depth + 1))
            return SequenceNode(tuple(items), self._at(event))
        return self._mapping(event, depth)

    def _scalar(self, event: Any, key: str) -> Scalar:
        start, end = event.start_mark, event.end_mark
        self.source.remember(key, event.value, (start.line, start.column), (end.line, end.column))
        if event.style or event.tag == "tag:yaml.org,2002:str":
            return Scalar(event.value, self._at(event), event.value)
        value, ambiguity = resolve(event.value)
        return Scalar(value, self._at(event), event.value, ambiguity)

    def _mapping(self, event: Any, depth: int) -> MappingNode:
        entries: dict[str, Entry] = {}
        merged: list[MappingNode] = []
        while not isinstance(key_event := self._next(), yaml.MappingEndEvent):
            at = self._at(key_event)
            is_merge = isinstance(key_event, yaml.ScalarEvent) and key_event.value == "<<" and not key_event.style
            name = self._key(key_event, depth)
            node = self._node(self._next(), name or "", depth + 1)
            if is_merge:
                merged += self._merge_sources(node, at)
            elif name is not None and name in entries:
                first = entries[name].key.line
                help = (
                    "a password is either text or `{file: …}` (compose's PASSWORD_FILE), not both: "
                    if name == "password"
                    else ""
                )
                message = f"duplicate key {quoted(name)}: it stands twice"
                self.problems.append(
                    Problem(
                        "duplicate-key", message, at, name, f"{help}remove one of the two", (f"first on line {first}",)
                    )
                )
            elif name is not None:
                entries[name] = Entry(node, at)
        for mapping in merged:
            for name, entry in mapping.entries.items():
                entries.setdefault(name, entry)
        return MappingNode(entries, self._at(event))

    def _key(self, event: Any, depth: int) -> str | None:
        if isinstance(event, yaml.ScalarEvent):
            self._count(1, event)
            if event.style or event.tag == "tag:yaml.org,2002:str" or event.value == "<<":
                return str(event.value)
            if isinstance(resolve(event.value)[0], str):
                return str(event.value)
            self._key_problem(event, f"a key must be text, not {quoted(event.value) if event.value else 'nothing'}")
        else:
            self._key_problem(event, "a key must be text, not a list, a mapping or an alias")
            self._node(event, "", depth + 1)
        return None

    def _key_problem(self, event: Any, message: str) -> None:
        self.problems.append(Problem("wrong-type", message, self._at(event), help="keys are names of settings"))

    def _merge_sources(self, node: Node, at: Location) -> list[MappingNode]:
        sources = node.items if isinstance(node, SequenceNode) else (node,)
        good = [source for source in sources if isinstance(source, MappingNode)]
        if len(good) != len(sources):
            self.problems.append(Problem("wrong-type", "the merge key `<<` takes an alias of a mapping", at, "<<"))
        return good

    def _alias(self, event: Any) -> Node:
        known = self._anchors.get(event.anchor, ...)
        mark = event.start_mark
        if known is ...:
            _refuse(
                "yaml-syntax",
                f"alias {quoted('*' + event.anchor)}: there is no anchor of this name above",
                self.source,
                mark.line + 1,
                mark.column + 1,
            )
        if known is None:
            _refuse(
                "yaml-syntax",
                f"alias {quoted('*' + event.anchor)} stands inside its own anchor",
                self.source,
                mark.line + 1,
                mark.column + 1,
            )
        node, size = known
        self._count(size, event)
        return node

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > VALUE_LIMIT:
            mark = event.start_mark
            message = f"more than {VALUE_LIMIT} values, aliases written out: an alias bomb, or no configuration"
            _refuse("alias-bomb", message, self.source, mark.line + 1, mark.column + 1)

    def _check_tag(self, event: Any, key: str) -> None:
        tag = event.tag
        if tag is None or tag == "!" or tag == "tag:yaml.org,2002:str":
            return
        shown_tag = tag.replace("tag:yaml.org,2002:", "!!")
        what = f"tag {quoted(shown_tag)} is not allowed" + (f" at {quoted(key)}" if key else "")
        text = "YAML is data here: write plain text (a string), a number, a list or a mapping"
        self.problems.append(Problem("yaml-tag", what, self._at(event), key, help=text))

    def _at(self, event: Any) -> Location:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if end.line == start.line else 1
        return Location(self.source.shown, start.line + 1, start.column + 1, width=max(1, width), text=self.source)

    def _syntax_error(self, error: yaml.MarkedYAMLError, text: str) -> NoReturn:
        # For a missing colon libyaml marks the place where it gave up; the line at fault is its context.
        mark = (
            error.context_mark
            if "could not find expected ':'" in str(error.problem) and error.context_mark
            else error.problem_mark
        )
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        lines = text.splitlines()
        written = lines[line - 1] if line <= len(lines) else ""
        message, help = _explained(str(error.problem or error.context), written)
        if "tab" in message:
            column = written.index("\t") + 1
        _refuse("yaml-syntax", message, self.source, line, column, help)


def _explained(problem: str, line: str) -> tuple[str, str]:
    """Return what libyaml's message means to the person who wrote the line."""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab cannot indent YAML", "indent with spaces"
    if "could not find expected ':'" in problem:
        return "a key needs a colon and a space before its value", "write `key: value`, with the space"
    if "expected ',' or '}'" in problem or "expected ',' or ']'" in problem:
        return "a flow mapping or list is not closed here: `}` or `]` is missing", ""
    if "mapping values are not allowed" in problem:
        return "a `:` at the end of a value, or before a blank in it, begins a mapping", "put the value in quotes: '…'"
    if "cannot start any token" in problem:
        return f"{problem.removeprefix('found ')}", "quote the value: '…'"
    return problem or "not YAML", ""
