"""`${VAR}` references, replaced after YAML is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.light_dataclass import dataclass, replace
from dbconfig.errors.printable import printable, suggest
from dbconfig.errors.problem import Problem
from dbconfig.errors.redaction import is_secret_name
from dbconfig.settings import hosts
from dbconfig.settings.environment_variables import Environment, Variable
from dbconfig.settings.located_values import Entry, MappingNode, Node, Scalar, SequenceNode
from dbconfig.settings.secret_sources import bare, unexpanded_secret

NESTING_LIMIT = 8  # of defaults within defaults

_NAME = late_pattern(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HOST_AND_PORT = late_pattern(r"(?:[\w.-]+|\[[0-9A-Fa-f:.%\w]+\])(?::\d{1,5})?")

_EXPAND = (
    "set it to the complete value: references are expanded only in YAML and in `.env` files; "
    "`password: {{env: {variable}}}` uses the secret unchanged"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """`${name}`, or with `:-` and a default, or with `:?` and a message."""

    name: str
    operator: str
    argument: tuple[str | Reference, ...]


Parts = tuple["str | Reference", ...]


class _BadReference(Exception):
    def __init__(self, message: str, help: str) -> None:
        self.message, self.help = message, help


def interpolate(root: MappingNode, environment: Environment) -> tuple[MappingNode, list[Problem]]:
    """Return the mapping with its references replaced, and the problems; values that failed are missing."""
    worker = _Interpolation(environment)
    node = worker.mapping(root, ())
    return node, worker.problems


@dataclass(frozen=True, slots=True)
class Need:
    """An environment variable that a document refers to.

    Attributes:
        name: the variable's.
        key: the dotted path of the key whose value refers to it.
        required: whether the profile cannot be loaded without it.
        whole: whether it is the whole value, so that the value is unknown without it.
        late: whether it is read only at each connect, like `{env: NAME}`.
    """

    name: str
    key: str
    required: bool
    whole: bool
    late: bool = False


def needs(root: MappingNode, environment: Environment) -> tuple[Need, ...]:
    """Return the variables that a document refers to, in the order of the file, including `{env: NAME}`."""
    return tuple(dict.fromkeys(_needs(root, (), environment)))


def _needs(node: Node, path: tuple[str, ...], environment: Environment) -> Iterator[Need]:
    if isinstance(node, MappingNode):
        for name, entry in node.entries.items():
            yield from _needs(entry.node, (*path, name), environment)
    elif isinstance(node, SequenceNode):
        for item in node.items:
            yield from _needs(item, path, environment)
    elif isinstance(node.value, str) and path[-2:] == ("password", "env"):
        yield Need(node.value, ".".join(path[:-1]), True, True, late=True)
    elif isinstance(node.value, str) and "$" in node.value and not node.variables:
        try:
            parts = _parse(node.value)
        except _BadReference:
            return
        for name, required in _required(parts, environment):
            yield Need(name, ".".join(path), required, len(parts) == 1)


def _required(parts: Parts, environment: Environment) -> Iterator[tuple[str, bool]]:
    for part in parts:
        if isinstance(part, Reference):
            variable = environment.get(part.name)
            yield part.name, part.operator != ":-"
            # The default of a variable that is set is not evaluated.
            if variable is None or not variable.value:
                yield from _required(part.argument, environment)


def _names(parts: Parts) -> list[str]:
    return [name for part in parts if isinstance(part, Reference) for name in (part.name, *_names(part.argument))]


class _Interpolation:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.problems: list[Problem] = []
        self.unresolved: list[Problem] = []  # of the current value: all of its unset variables are reported

    def mapping(self, node: MappingNode, path: tuple[str, ...]) -> MappingNode:
        entries = {}
        for name, entry in node.entries.items():
            value = self.node(entry.node, (*path, name), entry)
            if value is not None:
                entries[name] = entry if value is entry.node else replace(entry, node=value)
        return replace(node, entries=entries)

    def node(self, node: Node, path: tuple[str, ...], entry: Entry) -> Node | None:
        if isinstance(node, MappingNode):
            return self.mapping(node, path)
        if isinstance(node, SequenceNode):
            items = [self.node(item, path, entry) for item in node.items]
            return replace(node, items=tuple(item for item in items if item is not None))
        # Values of variables are not expanded again, so they cannot inject a reference.
        if not isinstance(node.value, str) or "$" not in node.value or node.variables:
            return node
        return self._scalar(node, node.value, path, entry)

    def _scalar(self, node: Scalar, text: str, path: tuple[str, ...], entry: Entry) -> Scalar | None:
        key = ".".join(path)
        try:
            parts = _parse(text)
        except _BadReference as bad:
            self.problems.append(Problem("bad-reference", f"{key}: {bad.message}", entry.key, key, bad.help))
            return None
        names = tuple(_names(parts))
        self.unresolved = []
        literal = is_secret_name(path[-1])
        value = self._url(parts) if path[-1] == "url" else "".join(self._text(part, literal) for part in parts)
        for one in dict.fromkeys(self.unresolved):
            self.problems.append(replace(one, message=f"{key}: {one.message}", location=entry.key, key=key))
        if self.unresolved:
            return None
        return replace(node, value=value, ambiguity="", variables=names) if names else replace(node, value=value)

    def _text(self, part: str | Reference, literal: bool) -> str:
        return part if isinstance(part, str) else self._resolved(part, literal)

    def _resolved(self, reference: Reference, literal: bool) -> str:
        """Return the value of a reference; a `literal` one may contain text that looks like another reference."""
        name, argument = reference.name, reference.argument
        variable = self.environment.get(name)
        if variable is not None and (variable.missing or variable.value != ""):
            left = unexpanded_secret(variable) if literal else variable.unexpanded()
            if left:
                self.unresolved.append(_unexpanded(variable, left))
            return variable.value
        if reference.operator == ":-":
            return "".join(self._text(part, literal) for part in argument)
        self.unresolved.append(self._missing(reference, variable))
        return ""

    def _missing(self, reference: Reference, variable: Variable | None) -> Problem:
        name = reference.name
        state = "not set" if variable is None else f"empty ({variable.location})"
        if reference.operator == ":?":
            # In a message, a variable appears by name, because its value may be secret.
            wanted = "".join(part if isinstance(part, str) else f"${{{part.name}}}" for part in reference.argument)
            slug = "unset-variable" if variable is None else "empty-variable"
            message = f"{printable(wanted, 200) or 'it is required'}: environment variable {name} is {state}"
            return Problem(slug, message, help=f"set {name}")
        if variable is not None:
            help = f"set it, or write ${{{name}:-}} to allow an empty value"
            return Problem("empty-variable", f"environment variable {name} is {state}", help=help)
        near = suggest(name, self.environment, 0.8)
        notes = (f"a variable of a similar name is set: {printable(near)}",) if near else ()
        help = f"set it, or give a default: ${{{name}:-…}}"
        return Problem("unset-variable", f"environment variable {name} is not set", help=help, notes=notes)

    def _url(self, parts: Parts) -> str:
        """Join the parts of a URL, with each value escaped for its component."""
        skeleton = "".join(part if isinstance(part, str) else "\0" for part in parts)
        position, text = 0, []
        for part in parts:
            if isinstance(part, str):
                text.append(part.replace("${", "%24{"))  # written as `$${`: text, not an unexpanded reference
                position += len(part)
            else:
                component = _component(skeleton, position)
                text.append(_escaped(bare(self._resolved(part, component == "userinfo")), component))
                position += 1
        return "".join(text)


def _unexpanded(variable: Variable, name: str) -> Problem:
    """Return the problem of a variable whose value contains an unexpanded reference to another one."""
    place = f" ({variable.location})" if variable.location.line else ""
    if variable.missing:
        message = f"environment variable {variable.name}{place} refers to {name}, which is not set"
        return Problem("unset-variable", message, help=f"set {name}, or give a default: ${{{name}:-…}}")
    message = f"environment variable {variable.name}{place} contains `${{{name}}}`, which was not expanded"
    return Problem("bad-reference", message, help=_EXPAND.format(variable=variable.name))


def _component(url: str, position: int) -> str:
    start = url.find("://")
    if start < 0 or position < start:
        return "whole"  # the variable holds the URL, or its scheme
    begin = start + 3
    end = next((begin + i for i, ch in enumerate(url[begin:]) if ch in "/?#"), len(url))
    if position < url.rfind("@", begin, end):
        return "userinfo"
    if position < end:
        return "host"
    query = url.find("?", end)
    return "path" if query < 0 or position < query else "query"


def _escaped(value: str, component: str) -> str:
    if component == "whole" or (component == "host" and _HOST_AND_PORT.fullmatch(value)):
        return value
    if component == "host":
        return hosts.joined(value) if hosts.is_ipv6(value) else quote(value, safe="", errors="surrogateescape")
    # Invalid UTF-8 is kept, and rejected when the URL is parsed.
    return quote(value, safe="/" if component == "path" else "", errors="surrogateescape")


def _parse(text: str) -> Parts:
    parts, _ = _parts(text, 0, 0)
    return parts


def _parts(text: str, i: int, depth: int) -> tuple[Parts, int]:
    parts: list[str | Reference] = []
    literal: list[str] = []
    while i < len(text) and not (depth and text[i] == "}"):
        if text.startswith("$$", i):
            literal.append("$")
            i += 2
        elif text.startswith("${", i):
            reference, i = _reference(text, i + 2, depth + 1)
            parts += ["".join(literal), reference]
            literal = []
        elif text[i] == "$" and _NAME.match(text, i + 1):
            # The name is not shown: in a password, it is a part of the password.
            raise _BadReference(
                "a `$` before a name is not a reference", "write ${NAME} for a variable, $$ for a dollar sign"
            )
        else:
            literal.append(text[i])
            i += 1
    return tuple(part for part in (*parts, "".join(literal)) if part != ""), i


def _reference(text: str, i: int, depth: int) -> tuple[Reference, int]:
    if depth > NESTING_LIMIT:
        raise _BadReference(f"defaults are nested more than {NESTING_LIMIT} deep", "")
    name = _NAME.match(text, i)
    if name is None:
        raise _BadReference(
            "a reference needs the name of a variable: letters, digits and `_`",
            "write ${NAME}, or $$ for a dollar sign",
        )
    argument: Parts = ()
    i, operator = name.end(), text[name.end() : name.end() + 2]
    if operator in (":-", ":?"):
        argument, i = _parts(text, i + 2, depth)
    else:
        operator = ""
    if i >= len(text):
        raise _BadReference("`${` is not closed: its `}` is missing", "write ${NAME}")
    if text[i] != "}":
        raise _BadReference(
            "the name of a variable has letters, digits and `_` only",
            "write ${NAME}, ${NAME:-default} or ${NAME:?message}",
        )
    return Reference(name[0], operator, argument), i + 1
