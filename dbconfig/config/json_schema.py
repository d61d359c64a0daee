"""The JSON schema of the YAML files, for editors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic.fields import FieldInfo

from dbconfig.settings import durations, value_types
from dbconfig.settings.choices import Choice, FlagOr
from dbconfig.settings.key_kinds import default, description, kind, limits, validators
from dbconfig.settings.keys import DATABASES, EXTENDS, SCHEMA, Keys, ReplicaKeys, group
from dbconfig.settings.tags import TAGS

# A text for each value of an enumeration.
_MEANINGS: Final[dict[str, dict[str, str]]] = {
    "poolclass": {
        "QueuePool": "Keeps pool_size connections and opens max_overflow more",
        "NullPool": "Opens a connection for each use and closes it",
        "StaticPool": "One connection for everybody",
        "SingletonThreadPool": "One connection for each thread",
        "AssertionPool": "One connection, and an error where a second one is asked for: for tests",
    },
    "pool_reset": {
        "rollback": "Keep what a session has set for itself: variables, roles, temporary tables, locks",
        "discard": "Reset the session: DISCARD ALL, COM_RESET_CONNECTION; on SQLite a new connection",
    },
    "pool_reset_on_return": {
        "rollback": "Roll back: nothing that was not committed stays",
        "commit": "Commit what was forgotten",
        "discard": "Roll back and reset the session: `pool_reset: discard`",
        "none": "Leave the transaction as it is",
    },
    "paramstyle": {
        "qmark": "WHERE name = ?",
        "named": "WHERE name = :name",
        "format": "WHERE name = %s",
        "pyformat": "WHERE name = %(name)s",
        "numeric_dollar": "WHERE name = $1",
    },
    "isolation_level": {
        "READ COMMITTED": "PostgreSQL's default: each statement sees what was committed before it",
        "REPEATABLE READ": "MySQL's default: all statements see the same snapshot",
        "SERIALIZABLE": "As if transactions ran one after the other; some have to be repeated",
        "READ UNCOMMITTED": "Sees what others have not committed yet",
        "AUTOCOMMIT": "No transactions: each statement commits immediately",
    },
    "echo": {"debug": "Log the rows too"},
    "echo_pool": {"debug": "Log every checkout and return"},
}
# Offered where the default is not the best offer.
_EXAMPLES: Final[dict[str, list[Any]]] = {
    "url": ["sqlite:///data/app.db", "postgresql://app:${DB_PASSWORD}@localhost/app", "${DATABASE_URL}"],
    "drivername": ["postgresql", "mysql", "mariadb", "sqlite"],
    "password": ["${DB_PASSWORD}"],
    "host": ["${DB_HOST:-localhost}"],
    "pool_recycle": ["5m"],
    "statement_timeout": ["30s"],
    "lock_timeout": ["5s"],
    "idle_in_transaction_timeout": ["60s"],
}
_REFERENCE: Final = {"type": "string", "pattern": r"\$\{[A-Za-z_]"}
_DURATION: Final = {"type": "string", "pattern": f"^{durations.PATTERN}$"}


def schema() -> dict[str, Any]:
    """Return the schema of a profile's file."""
    definitions = {name: _field(name, field) for name, field in Keys.model_fields.items()}
    references = {name: {"$ref": f"#/definitions/{name}"} for name in definitions}
    database = {"type": "object", "properties": references, "additionalProperties": False}
    own = {name: reference for name, reference in references.items() if group(Keys.model_fields[name]) != "replica"}
    weight = _field("weight", ReplicaKeys.model_fields["weight"])
    replica = {"type": "object", "properties": {**own, "weight": weight}, "additionalProperties": False}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://raw.githubusercontent.com/sqlmodel-dbconfig/dbconfig/main/config/schema.json",
        "title": "dbconfig profile",
        "description": "The database connections of one profile: config/default.yaml is what all profiles share",
        "type": "object",
        "properties": {
            "$schema": {"type": "string", "description": SCHEMA},
            "extends": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
                "description": EXTENDS,
            },
            **references,
            "databases": {
                "type": "object",
                "description": DATABASES,
                "additionalProperties": {"$ref": "#/definitions/-database"},
            },
        },
        "additionalProperties": False,
        "defaultSnippets": _snippets(),
        # A name that no setting can have.
        "definitions": {**definitions, "-database": database, "-replica": replica},
    }


def _field(name: str, field: FieldInfo) -> dict[str, Any]:
    found: dict[str, Any] = {"description": description(name, field)}
    if default(field) not in (None, {}):
        found["default"] = default(field)
    if name in _EXAMPLES:
        found["examples"] = _EXAMPLES[name]
    return {**found, **_shape(name, field)}


def _shape(name: str, field: FieldInfo) -> dict[str, Any]:
    bounds = limits(field)
    match kind(field):
        case "integer":
            return {"anyOf": [{"type": "integer", **bounds}, _REFERENCE]}
        case "seconds":
            return {"anyOf": [{"type": "number", **bounds}, _DURATION, _REFERENCE]}
        case "seconds or false":
            # Not an enumeration: its one value would be offered before every duration.
            never = {"type": "boolean", "const": False}
            return {"anyOf": [{"type": "number", **bounds}, _DURATION, never, _REFERENCE]}
        case "seconds or flag":
            return {"anyOf": [{"type": "boolean"}, {"type": "number", **bounds}, _DURATION, _REFERENCE]}
        case "flag":
            return {"anyOf": [{"type": "boolean"}, _REFERENCE]}
        case "choice" | "level":
            return {"anyOf": [*_enumerations(name, field), _REFERENCE]}
        case "secret":
            places = {"file": "A file that holds it and nothing else", "env": "An environment variable that holds it"}
            places["provider"] = "A function that was registered under this name, or an installed package's"
            mappings = [
                {
                    "type": "object",
                    "properties": {key: {"type": "string", "description": text}},
                    "required": [key],
                    "additionalProperties": False,
                }
                for key, text in places.items()
            ]
            return {"anyOf": [{"type": "string", "minLength": 1}, *mappings]}
        case "hosts":
            one = {"type": "string", "minLength": 1}
            return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
        case "mapping" if name == "shards":
            return {"type": "object", "additionalProperties": {"$ref": "#/definitions/-database"}}
        case "names":
            one = {"type": "string", "enum": list(TAGS), "enumDescriptions": list(TAGS.values())}
            return {"anyOf": [{"type": "array", "items": one, "uniqueItems": True}, _REFERENCE]}
        case "mapping":
            return {"type": "object"}
        case "list":
            return {"type": "array", "items": {"$ref": "#/definitions/-replica"}}
    return {"type": "string", "minLength": 1}


def _enumerations(name: str, field: FieldInfo) -> Iterator[dict[str, Any]]:
    for function in validators(field):
        if isinstance(function, FlagOr):
            yield {"type": "boolean"}
            yield _enumeration(name, function.words)
        elif isinstance(function, Choice):
            words = [*function.options, *(key for key in function.also if isinstance(key, str))]
            yield _enumeration(name, words)
            if any(key is True for key in function.also):
                yield {"type": "boolean"}
            # The case of a word does not matter.
            yield {"type": "string", "pattern": f"^(?:{'|'.join(_any_case(word) for word in words)})$"}
        elif function is value_types.isolation_level:
            yield _enumeration(name, tuple(_MEANINGS[name]))
            words = [_any_case(word).replace(" ", "[ _-]") for word in _MEANINGS[name]]
            yield {"type": "string", "pattern": f"^(?:{'|'.join(words)})$"}


def _any_case(word: str) -> str:
    return "".join(f"[{ch.upper()}{ch.lower()}]" if ch.isalpha() else ch for ch in word)


def _enumeration(name: str, words: Any) -> dict[str, Any]:
    texts = _MEANINGS.get(name, {})
    found: dict[str, Any] = {"type": "string", "enum": list(words)}
    if texts:
        found["enumDescriptions"] = [texts.get(word, "") for word in words]
    return found


def _snippets() -> list[dict[str, Any]]:
    server = {"username": "${2:app}", "password": "\\${${3:DB_PASSWORD}}", "host": "${4:localhost}"}
    return [
        {
            "label": "SQLite",
            "description": "A database in a file of the project",
            "body": {"url": "sqlite:///${1:data/app.db}"},
        },
        {
            "label": "PostgreSQL",
            "description": "A PostgreSQL server, its password from the environment",
            "body": {"drivername": "postgresql", **server, "database": "${1:app}"},
        },
        {
            "label": "MySQL or MariaDB",
            "description": "A MySQL or MariaDB server, its password from the environment",
            "body": {"drivername": "${5|mysql,mariadb|}", **server, "database": "${1:app}"},
        },
    ]
