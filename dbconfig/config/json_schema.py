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

# A description for each value of an enumeration.
_MEANINGS: Final[dict[str, dict[str, str]]] = {
    "poolclass": {
        "QueuePool": "Keeps pool_size connections and opens max_overflow more",
        "NullPool": "Opens a connection for each use and closes it",
        "StaticPool": "One connection for all threads",
        "SingletonThreadPool": "One connection for each thread",
        "AssertionPool": "One connection; a second checkout raises an error. For tests",
    },
    "pool_reset": {
        "rollback": "Keep what a session has set for itself: variables, roles, temporary tables, locks",
        "discard": "Reset the session: DISCARD ALL, COM_RESET_CONNECTION; on SQLite a new connection",
    },
    "pool_reset_on_return": {
        "rollback": "Roll back uncommitted work",
        "commit": "Commit uncommitted work",
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
        "SERIALIZABLE": "As if transactions ran one after another; some must be retried",
        "READ UNCOMMITTED": "Sees uncommitted changes of other transactions",
        "AUTOCOMMIT": "No transactions: each statement commits immediately",
    },
    "echo": {"debug": "Log the rows too"},
    "echo_pool": {"debug": "Log every checkout and return"},
}
# The address of the repository; a test compares it with [project.urls], from which everything else takes it.
ID: Final = "https://raw.githubusercontent.com/sqlmodel-dbconfig/dbconfig/main/config/schema.json"
# The first example of each key is the one that the reference shows; editors offer all of them.
EXAMPLES: Final[dict[str, list[Any]]] = {
    "url": ["sqlite:///data/app.db", "postgresql://app:${DB_PASSWORD}@localhost/app", "${DATABASE_URL}"],
    "drivername": ["postgresql", "mysql", "mariadb", "sqlite"],
    "username": ["app"],
    "password": ["${DB_PASSWORD}"],
    "host": ["${DB_HOST:-localhost}"],
    "port": [5432, 3306],
    "database": ["shop"],
    "query": [{"sslmode": "require"}],
    "sslmode": ["verify-full"],
    "sslrootcert": ["system"],
    "sslcert": ["certificates/client.crt"],
    "sslkey": ["certificates/client.key"],
    "pool_size": [20],
    "max_overflow": [40],
    "pool_timeout": ["10s"],
    "pool_recycle": ["5m"],
    "pool_pre_ping": [True],
    "pool_min_idle": [2],
    "pool_idle_timeout": ["5m"],
    "pool_keepalive": ["30s"],
    "pool_max_waiting": [100],
    "pool_queue_target": ["50ms"],
    "pool_leak_warning": ["30s"],
    "engine_idle_timeout": ["15m"],
    "pool_use_lifo": [True],
    "pool_reset": ["discard"],
    "pool_reset_on_return": ["commit"],
    "poolclass": ["NullPool"],
    "echo": [True],
    "echo_pool": [True],
    "hide_parameters": [True],
    "logging_name": ["shop"],
    "pool_logging_name": ["shop"],
    "isolation_level": ["SERIALIZABLE"],
    "execution_options": [{"yield_per": 500}],
    "connect_args": [{"keepalives_idle": 30}],
    "dialect_options": [{"executemany_mode": "values_only"}],
    "query_cache_size": [2000],
    "insertmanyvalues_page_size": [500],
    "use_insertmanyvalues": [False],
    "enable_from_linting": [False],
    "label_length": [30],
    "max_identifier_length": [63],
    "paramstyle": ["named", "pyformat"],
    "connect_timeout": ["2s"],
    "statement_timeout": ["30s"],
    "lock_timeout": ["5s"],
    "idle_in_transaction_timeout": ["60s"],
    "variables": [{"search_path": "shop"}],
    "pgbouncer": [True],
    "shards": [{"eu": {"host": "db-eu"}, "us": {"host": "db-us"}}, {"eu": {"database": "data/eu.db"}}],
    "replicas": [[{"host": "db2"}, {"host": "db3", "weight": 2}]],
    "read_your_writes": [False],
    "replica_max_lag": ["10s"],
    "replica_fallback": [False],
    "application_name": ["checkout"],
    "slow_statement": ["500ms"],
    "slow_statement_plan": [True],
    "query_tags": [["application", "route"]],
    "fast_begin": [True],
    "expire_on_commit": [False],
    "autoflush": [False],
    "protected": [True],
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
        "$id": ID,
        "title": "dbconfig profile",
        "description": "The database connections of one profile; config/default.yaml holds what all profiles share",
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
    if name in EXAMPLES:
        found["examples"] = EXAMPLES[name]
    return {**found, **_shape(name, field)}


def _shape(name: str, field: FieldInfo) -> dict[str, Any]:
    bounds = limits(field)
    match kind(field):
        case "integer":
            return {"anyOf": [{"type": "integer", **bounds}, _REFERENCE]}
        case "seconds":
            return {"anyOf": [{"type": "number", **bounds}, _DURATION, _REFERENCE]}
        case "seconds or false":
            # Not an enumeration: editors would offer its only value before every duration.
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
            places["provider"] = "A function registered under this name, or provided by an installed package"
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
