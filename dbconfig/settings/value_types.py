"""Types of settings: text, numbers, flags, mappings, and secrets in all accepted notations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, cast

from pydantic import BeforeValidator
from pydantic_core import CoreSchema, core_schema

from dbconfig.errors.late_pattern import late_pattern
from dbconfig.errors.printable import quoted
from dbconfig.errors.redaction import MASK, is_secret_name
from dbconfig.settings.bare_scalars import resolve
from dbconfig.settings.environment_variables import unexpanded
from dbconfig.settings.findings import Finding, reject, reject_all
from dbconfig.settings.located_values import MappingNode, Scalar, SequenceNode
from dbconfig.settings.secret_sources import Secret, bare, unusable

_DIGITS = late_pattern(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
# The words that YAML 1.1 and pydantic read as booleans, in any case, except "t", "f", and digits.
FLAGS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def plain(value: Any) -> Any:
    """Return the plain value of a node, or of any other object."""
    if isinstance(value, Scalar):
        return value.value
    if isinstance(value, MappingNode):
        return {key: plain(entry.node) for key, entry in value.entries.items()}
    if isinstance(value, SequenceNode):
        return [plain(item) for item in value.items]
    return value


def kind_of(value: Any) -> str:
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        ((int, float), "a number"),
        (str, "text"),
        ((Mapping, MappingNode), "a mapping"),
        ((list, tuple, SequenceNode), "a list"),
        (type(None), "nothing"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), type(value).__name__)


def ambiguity(value: Any) -> str:
    return value.ambiguity if isinstance(value, Scalar) else ""


def whole_number(value: Any) -> int:
    raw = plain(value)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and _DIGITS.fullmatch(raw) and not ambiguity(value):
        return int(raw)
    if ambiguity(value):
        raise reject(
            "ambiguous-value",
            f"must be a whole number, but YAML 1.1 reads this as {ambiguity(value)}",
            "write the number in plain digits",
        )
    help = "write it in digits, without a unit"
    if isinstance(raw, str) and raw.startswith("tcp://"):
        help = "use a variable with another name: Kubernetes sets one like this for each service"
    said = "one with a decimal point or an exponent" if isinstance(raw, float) else kind_of(raw)
    raise reject("wrong-type", f"must be a whole number, not {said}", help)


def flag(value: Any) -> bool:
    raw = plain(value)
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in FLAGS:
        return FLAGS[raw.lower()]
    if raw in ("0", "1") and isinstance(value, Scalar) and value.variables:
        return bool(int(raw))  # the shell's words; in YAML a number is a number
    raise reject("wrong-type", f"must be true or false, not {kind_of(raw)}", "true or false")


def text(value: Any) -> str:
    raw = plain(value)
    if ambiguity(value):
        raise reject(
            "ambiguous-value", f"must be text, but YAML 1.1 reads this as {ambiguity(value)}", "put it in quotes: '…'"
        )
    if not isinstance(raw, str):
        help = "put it in quotes: '…'" if isinstance(raw, (bool, int, float)) else "write one text (a string)"
        if isinstance(raw, Mapping):
            help = "write one text: settings go to the top of the file, further databases under `databases:`"
        raise reject("wrong-type", f"must be text (a string), not {kind_of(raw)}", help)
    return raw


def name(value: Any) -> str:
    """Accept non-empty text on one line, without control characters."""
    raw = text(value)
    if not raw:
        raise reject("missing-value", "is empty")
    if not all(ch.isprintable() for ch in raw):
        raise reject("invalid-value", "contains a line break or another control character")
    left = "" if isinstance(value, Scalar) else unexpanded(raw)  # in a file, only `$${…}` is left
    if left:
        raise reject("bad-reference", f"contains `${{{left}}}`, which is expanded in YAML files only", "pass its value")
    return raw


def secret(value: Any) -> Secret:
    """Accept a secret as text, or as `{file: PATH}`, `{env: NAME}`, or `{provider: NAME}`."""
    if isinstance(value, Secret):
        return value
    location = value.location if isinstance(value, (Scalar, MappingNode)) else None
    raw = plain(value)
    if not isinstance(raw, Mapping):
        written = bare(text(value))
        if not written:
            raise reject("missing-value", "is empty", "remove the line if the database has no password")
        if unusable(written):
            raise reject("invalid-value", unusable(written))
        return Secret("text", written, location, written=isinstance(value, Scalar) and not value.variables)
    if len(raw) != 1 or next(iter(raw)) not in ("file", "env", "provider"):
        help = (
            "{file: /run/secrets/name}, {env: NAME} or {provider: NAME}; "
            "put a password that begins with a brace in quotes"
        )
        raise reject("invalid-value", "must be text, or a mapping with one key: `file`, `env` or `provider`", help)
    kind, argument = next(iter(raw.items()))
    if not isinstance(argument, str) or not argument or not all(ch.isprintable() for ch in argument):
        raise reject("wrong-type", f"`{kind}` must be text in one line", at=(kind,))
    return Secret(kind, argument, location)


def isolation_level(value: Any) -> str:
    return text(value).upper().replace("_", " ").replace("-", " ")


def options(value: Any) -> dict[str, Any]:
    """Accept arguments of another package's function, for which null is None; a name without a value is an error."""
    forgotten = list(_forgotten(value))
    if forgotten:
        help = "give it a value, write null for None, or remove it"
        raise reject_all(Finding("empty-value", f"{quoted(at[-1])} has no value", help, at) for at in forgotten)
    return _named(value)


def _forgotten(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, entry in value.entries.items() if isinstance(value, MappingNode) else ():
        if isinstance(entry.node, Scalar) and entry.node.value is None and not entry.node.written:
            yield (*path, name)
        yield from _forgotten(entry.node, (*path, name))


def _named(value: Any) -> dict[str, Any]:
    raw = _read(value)
    if not isinstance(raw, Mapping):
        help = "write `name: value` below it"
        if isinstance(value, Scalar) and value.variables:
            help = "each name has a variable of its own, with two underscores before it: …__NAME=value"
        raise reject("wrong-type", f"must be a mapping of names to values, not {kind_of(raw)}", help)
    return {str(key): Secret("text", item) if _holds_secret(str(key), item) else item for key, item in raw.items()}


def mapping(value: Any) -> dict[str, Any]:
    """Accept names and values; null is not a value."""
    found = _named(value)
    empty = [key for key, item in found.items() if item is None]
    if empty:
        raise reject_all(
            Finding("empty-value", f"{quoted(key)} has no value", "give it one, or remove it", (key,)) for key in empty
        )
    return found


def _read(value: Any, key: str = "") -> Any:
    """Return a node as plain values; a variable's text is parsed as YAML, since "false" is true for every driver."""
    if isinstance(value, MappingNode):
        return {name: _read(entry.node, name) for name, entry in value.entries.items()}
    if isinstance(value, SequenceNode):
        return [_read(item, key) for item in value.items]
    raw = plain(value)
    if isinstance(value, Scalar) and value.variables and isinstance(raw, str) and not is_secret_name(key):
        return resolve(raw)[0] if raw else raw
    return raw


def _holds_secret(key: str, value: Any) -> bool:
    """Return whether a value must not be shown; a mapping or list that contains a secret is treated as one secret."""
    if isinstance(value, Mapping):
        return any(_holds_secret(str(name), item) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return any(_holds_secret(key, item) for item in value)
    return isinstance(value, str) and is_secret_name(key)


def shown_mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: MASK if isinstance(item, Secret) or is_secret_name(key) else item for key, item in value.items()}


class Shown:
    """How a dump shows a value: pydantic's `PlainSerializer`, whose import takes longer than that of all settings."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def in_dumps(self, schema: CoreSchema) -> CoreSchema:
        dumped = core_schema.plain_serializer_function_ser_schema(self._function)
        return cast("CoreSchema", {**schema, "serialization": dumped})

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        return self.in_dumps(handler(source))


WholeNumber = Annotated[int, BeforeValidator(whole_number)]
Flag = Annotated[bool, BeforeValidator(flag)]
Name = Annotated[str, BeforeValidator(name)]
Password = Annotated[Secret, BeforeValidator(secret), Shown(lambda value: value.masked())]
IsolationLevel = Annotated[str, BeforeValidator(isolation_level)]
Options = Annotated[dict[str, Any], BeforeValidator(options), Shown(shown_mapping)]
Named = Annotated[dict[str, Any], BeforeValidator(mapping), Shown(shown_mapping)]
Variables = Annotated[dict[str, Any], BeforeValidator(mapping), Shown(shown_mapping)]
