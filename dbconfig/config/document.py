"""A YAML file as values that remember where they were written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from dbconfig.config.yaml_syntax import explained
from dbconfig.errors import ConfigError
from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import replace
from dbconfig.errors.printable import quoted, suggest
from dbconfig.errors.problem import Location, Problem
from dbconfig.errors.redaction import MASK, is_secret_name, shown_name
from dbconfig.settings import small_files
from dbconfig.settings.bare_scalars import resolve
from dbconfig.settings.located_values import Entry, MappingNode, Node, Scalar, SequenceNode, Source

SIZE_LIMIT: Final = small_files.LIMIT
VALUE_LIMIT: Final = 10_000  # values of one file with its aliases expanded: an alias bomb has billions
DEPTH_LIMIT: Final = 32

Path_ = tuple[str, ...]  # of a key; an item of a list has the path of its list

_SECRET_SOURCES: Final = ("file", "env", "provider")
# The C loader is seven times faster and gives the same positions; a build from source may lack it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTROL = late_pattern("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def read(path: Path, shown: str) -> tuple[MappingNode, list[Problem]]:
    """Read a YAML file whose root is a mapping; return it with its recoverable problems.

    Args:
        path: the file.
        shown: its name in messages.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is too large for a configuration.
    """
    return _parsed(Source(shown, _text(path, shown)))


def parse(text: str, shown: str) -> tuple[MappingNode, list[Problem]]:
    """Return the root mapping of a YAML text; `read` documents the errors."""
    source = Source(shown, text)
    del text  # no frame of a traceback may hold what is in the file
    return _parsed(source)


def _parsed(source: Source) -> tuple[MappingNode, list[Problem]]:
    printable = source.whole().replace("\n", "").isprintable()  # then nothing needs to be searched for
    control = None if printable else source.find(_CONTROL)
    if control is not None:
        line, column, character = control
        message = f"control character #x{ord(character):04x} is not allowed in YAML"
        _refuse("yaml-syntax", message, source, line, column)
    composer = _Composer(source)
    root = composer.compose()
    if isinstance(root, MappingNode):
        return root, composer.problems
    if isinstance(root, Scalar) and root.value is None:
        _refuse("missing-value", "the file is empty: there are no settings in it", source, help="write at least `url:`")
    what = "text" if isinstance(root, Scalar) else "a list"
    message = f"the file must be a mapping of keys to values, not {what}"
    help = "write `url: …` and the other settings as `key: value`, one per line"
    return _refuse("wrong-type", message, source, root.location.line, root.location.column, help)


def _refuse(
    slug: str, message: str, source: Source, line: int | None = None, column: int | None = None, help: str = ""
) -> NoReturn:
    # `from None`: the parser's own error can contain a piece of the text.
    raise ConfigError([Problem(slug, message, Location(source.shown, line, column, text=source), help=help)]) from None


def _text(path: Path, shown: str) -> str:
    source = Source(shown)
    try:
        data = small_files.read(path, SIZE_LIMIT)
    except small_files.Unreadable as error:
        reason, too_large = str(error), error.too_large
    else:
        wrong = small_files.undecodable(data)
        if not wrong:
            # The codec utf-8-sig does the same, and would be imported for it.
            return data.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        line = None if "UTF-16" in wrong else _first_undecodable(data)
        del data  # no frame of a traceback may hold what is in the file
        said = wrong if line is None else "the file is not UTF-8: a character cannot be decoded"
        _refuse(
            "yaml-syntax", said.partition(":")[0] if line is None else said, source, line, help="save the file as UTF-8"
        )
    if too_large:
        help = "check whether this is the right file"
        _refuse("too-large", f"larger than {SIZE_LIMIT // 1024} KiB", source, help=help)
    help = "a profile is a plain YAML file" if "regular" in reason else ""
    _refuse("file-unreadable", f"{quoted(shown)}: {reason}", source, help=help)


def _first_undecodable(data: bytes) -> int:
    """Return the line of the first byte that is not UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return 1


class _Composer:
    """Builds nodes from parser events: without recursion in C, with our scalars, and with limits."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._before_secrets: dict[str, Problem] = {}  # unused anchors so far
        self._values = 0

    def compose(self) -> Node:
        self._loader = _Loader(self.source.whole())
        try:
            root = self._document()
        except yaml.MarkedYAMLError as error:
            wrong = explained(error, self.source)
        else:
            self.source.parsed = True
            return root
        finally:
            self._loader.dispose()
        # Not within `except`: PyYAML's own error contains the text of the file.
        line, column, message, help = wrong
        return _refuse("yaml-syntax", message, self.source, line, column, help)

    def _document(self) -> Node:
        self._next()  # stream start
        if isinstance(self._next(), yaml.StreamEndEvent):
            return Scalar(None, Location(self.source.shown, text=self.source))
        root = self._node(self._next(), (), 0)
        self._next()  # document end
        end = self._next()
        if not isinstance(end, yaml.StreamEndEvent):
            message, mark = "a second document (`---`) starts here", end.start_mark
            _refuse("yaml-syntax", message, self.source, mark.line + 1, mark.column + 1, "write one document per file")
        self.problems += self._before_secrets.values()
        return root

    def _next(self) -> Any:
        return self._loader.get_event()

    def _node(self, event: Any, path: Path_, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        self._count(1, event)
        if depth > DEPTH_LIMIT:
            mark = event.start_mark
            _refuse(
                "too-large", f"nested more than {DEPTH_LIMIT} levels deep", self.source, mark.line + 1, mark.column + 1
            )
        self._check_tag(event, path)
        if _is_secret(path) and (event.tag or event.anchor):
            start, end = event.start_mark, event.end_mark
            self.source.remember(path[-1], "", (start.line, start.column), (end.line, end.column))
        if event.anchor:
            self._anchors[event.anchor] = None  # open: an alias to it now would be recursive
            if _is_secret(path):
                self._anchor_before_secret(event, path)
        before, node = self._values, self._content(event, path, depth)
        if event.anchor:
            self._anchors[event.anchor] = (node, self._values - before + 1)
        return node

    def _content(self, event: Any, path: Path_, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path[-1] if path else "")
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event_ := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(event_, path, depth + 1))
            return SequenceNode(tuple(items), self._at(event))
        return self._mapping(event, path, depth)

    def _scalar(self, event: Any, key: str) -> Scalar:
        self._remember(event, key)
        if event.style or event.tag == "tag:yaml.org,2002:str":
            return Scalar(event.value, self._at(event), event.value)
        value, ambiguity = resolve(event.value)
        return Scalar(value, self._at(event), event.value, ambiguity)

    def _remember(self, event: Any, key: str) -> None:
        start, end = event.start_mark, event.end_mark
        self.source.remember(key, event.value, (start.line, start.column), (end.line, end.column))

    def _mapping(self, event: Any, path: Path_, depth: int) -> MappingNode:
        entries: dict[str, Entry] = {}
        merged: list[MappingNode] = []
        while not isinstance(key_event := self._next(), yaml.MappingEndEvent):
            at = self._at(key_event)
            is_merge = isinstance(key_event, yaml.ScalarEvent) and key_event.value == "<<" and not key_event.style
            name = self._key(key_event, path, depth)
            node = self._node(self._next(), path if is_merge or name is None else (*path, name), depth + 1)
            if is_merge:
                merged += self._merge_sources(node, at)
            elif self._is_secret_key(path, name, key_event) and isinstance(node, Scalar) and not node.written:
                self._secret_in_braces(path, key_event)
            elif name is not None and name in entries:
                self._duplicate(path, name, at, entries[name].key)
            elif name is not None:
                entries[name] = Entry(node, at)
        for mapping in merged:
            for name, entry in mapping.entries.items():
                entries.setdefault(name, entry)
        return MappingNode(entries, self._at(event))

    def _is_secret_key(self, path: Path_, name: str | None, event: Any) -> bool:
        """Return whether a key in the mapping of a secret may be the secret itself, and mask it."""
        if not _is_secret(path) or name is None or suggest(name, _SECRET_SOURCES, 0.5):
            return False
        self._remember(event, path[-1])
        return True

    def _secret_in_braces(self, path: Path_, event: Any) -> None:
        # `password: {abc}` is a mapping whose key is the password.
        at, key = replace(self._at(event), width=1), ".".join(path)
        help = "put it in quotes: '…'; or write {file: PATH} or {env: NAME}"
        self.problems.append(Problem("invalid-value", f"{key}: the braces make it a mapping", at, key, help))

    def _anchor_before_secret(self, event: Any, path: Path_) -> None:
        # Of `password: &abc def` only `def` would be the password.
        at, key = replace(self._at(event), width=1), ".".join(path)
        help = "put a text that begins with `&` in quotes: '…'"
        message = f"{key}: `&` begins an anchor that is not used"
        self._before_secrets[event.anchor] = Problem("invalid-value", message, at, key, help)

    def _duplicate(self, path: Path_, name: str, at: Location, first: Location) -> None:
        help = "remove one of the two"
        if name == "password":
            help = f"a password is either text or `{{file: …}}` (compose's PASSWORD_FILE), not both: {help}"
        message = f"duplicate key {quoted(shown_name(name))}: it is also on line {first.line}"
        key = ".".join((*path, name))
        also = ((first, "first here"),)
        self.problems.append(Problem("duplicate-key", message, at, key, help, label="again here", also=also))

    def _key(self, event: Any, path: Path_, depth: int) -> str | None:
        if isinstance(event, yaml.ScalarEvent):
            self._count(1, event)
            if shown_name(event.value) == MASK:  # a URL with its password, in the wrong place
                self._remember(event, "")
                return MASK
            if event.style or event.tag == "tag:yaml.org,2002:str" or event.value == "<<":
                return str(event.value)
            if isinstance(resolve(event.value)[0], str):
                return str(event.value)
            if not _is_secret(path):  # else it is a secret in braces
                self._key_problem(event, f"a key must be text, not {quoted(event.value) if event.value else 'nothing'}")
                return None
            return str(event.value)
        self._key_problem(event, "a key must be text, not a list, a mapping or an alias")
        self._node(event, path, depth + 1)
        return None

    def _key_problem(self, event: Any, message: str) -> None:
        self.problems.append(Problem("wrong-type", message, self._at(event), help="put it in quotes if it is a name"))

    def _merge_sources(self, node: Node, at: Location) -> list[MappingNode]:
        sources = node.items if isinstance(node, SequenceNode) else (node,)
        good = [source for source in sources if isinstance(source, MappingNode)]
        if len(good) != len(sources):
            self.problems.append(Problem("wrong-type", "the merge key `<<` needs an alias of a mapping", at, "<<"))
        return good

    def _alias(self, event: Any, path: Path_) -> Node:
        known = self._anchors.get(event.anchor, ...)
        mark = event.start_mark
        if known is ...:
            message = f"alias {_named(path, '*' + event.anchor)}: no anchor above has this name"
            help = "put a text that begins with `*` in quotes: '…'"
            _refuse("yaml-syntax", message, self.source, mark.line + 1, mark.column + 1, help)
        if known is None:
            message = f"alias {_named(path, '*' + event.anchor)} is inside its own anchor"
            _refuse("yaml-syntax", message, self.source, mark.line + 1, mark.column + 1)
        node, size = known
        self._before_secrets.pop(event.anchor, None)
        self._count(size, event)
        return node

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > VALUE_LIMIT:
            mark = event.start_mark
            message = f"more than {VALUE_LIMIT} values after expanding aliases: an alias bomb, or not a configuration"
            _refuse("alias-bomb", message, self.source, mark.line + 1, mark.column + 1)

    def _check_tag(self, event: Any, path: Path_) -> None:
        tag = event.tag
        if tag is None or tag == "!" or tag == "tag:yaml.org,2002:str":
            return
        key = ".".join(path)
        named = _named(path, tag.replace("tag:yaml.org,2002:", "!!"))
        what = f"tag {named} is not allowed" + (f" at {quoted(path[-1])}" if path else "")
        help = "write plain text (a string), a number, a list, or a mapping: YAML is data here"
        if path and _is_secret(path):
            help = "put a text that begins with `!` in quotes: '…'"
        at = self._at(event) if named != MASK else replace(self._at(event), width=1)
        self.problems.append(Problem("yaml-tag", what, at, key, help))

    def _at(self, event: Any) -> Location:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if end.line == start.line else 1
        return Location(self.source.shown, start.line + 1, start.column + 1, width=max(1, width), text=self.source)


def _is_secret(path: Path_) -> bool:
    """Return whether a path's key holds a secret; under `databases` it is always a name."""
    return bool(path) and is_secret_name(path[-1]) and not (len(path) == 2 and path[0] == "databases")


def _named(path: Path_, written: str) -> str:
    """Return an alias or a tag for display: before an unquoted secret, it may be the beginning of the secret."""
    return quoted(written) if not _is_secret(path) and re.fullmatch(r"[*!][\w!./:-]*", written) else MASK
