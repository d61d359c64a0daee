"""Write what is generated: config/, docs/reference.md, docs/errors.md, and the picture of the spike.

Run ``python docs/generate.py`` after a change to a setting, a kind of problem, or the benchmarks; a test fails until
then.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import tempfile
from pathlib import Path

from dbconfig import ConfigError, load
from dbconfig.cli.commands.init import templates
from dbconfig.cli.commands.schema import text as schema_text
from dbconfig.config.json_schema import EXAMPLES, ID, schema
from dbconfig.errors.catalogue import ADVICE, CATALOGUE, CONFIGURATION, CONNECTIONS
from dbconfig.settings.key_kinds import description, kind, shown_default, words
from dbconfig.settings.keys import Keys, group

sys.path.insert(0, str(Path(__file__).parent))
import spike_picture

ROOT = Path(__file__).parent.parent
GROUPS = {
    "connection": ("Connection", "The address: `url`, or its parts, or a URL completed by parts."),
    "tls": ("TLS", "The same values for every driver; docs/security.md says what each one verifies."),
    "pool": ("Pool", "How many connections are kept, and how long."),
    "timeout": ("Timeouts and session variables", "The same keys for every database system."),
    "replica": ("Replicas", "Servers for `session(read_only=True)`; each inherits all settings of its primary."),
    "observability": ("Observability", "What operators see of this program; docs/observability.md shows how."),
    "engine": ("Engine", "The other arguments of `create_engine`, under their own names."),
    "session": ("Session", "The behavior of sessions."),
}


def files() -> dict[Path, str]:
    """Return everything that is generated, by its place."""
    config = {ROOT / "config" / name: text for name, text in templates.profiles().items()}
    return {
        **config,
        ROOT / "config" / "schema.json": schema_text(),
        ROOT / "docs" / "reference.md": reference(),
        ROOT / "docs" / "errors.md": errors(),
        ROOT / "docs" / "schemastore.json": schemastore(),
        spike_picture.PICTURE: spike_picture.picture(),
        ROOT / "dbconfig" / "settings" / "typed_dict.py": typed_dict(),
    }


def schemastore() -> str:
    """Return docs/schemastore.json: the entry to send to https://github.com/SchemaStore/schemastore."""
    entry = {
        "name": "dbconfig profile",
        "description": "Database connections of SQLModel and SQLAlchemy (sqlmodel-dbconfig)",
        "fileMatch": [],  # the names are too common: a file selects the schema by its first line
        "url": ID,
    }
    return json.dumps(entry, indent=2) + "\n"


# What a type checker takes for a key in `Profile(…)`, by the kind of its value.
TYPES = {
    "url": "str",
    "text": "str",
    "secret": "str | Mapping[str, str]",
    "hosts": "str | Sequence[str]",
    "integer": "int",
    "names": "Sequence[str]",
    "mapping": "Mapping[str, Any]",
    "seconds": "float | str",
    "seconds or flag": "float | str | bool",
    "seconds or false": "float | str | Literal[False]",
    "flag": "bool",
    "level": "str",
    "list": "Sequence[Mapping[str, Any]] | Literal[False]",
}


def typed_dict() -> str:
    """Return dbconfig/settings/typed_dict.py."""
    lines = [
        '"""The keys of a profile for type checkers: written by docs/generate.py, never imported at run time."""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, Literal, TypedDict",
        "",
        "",
        "class ProfileKeys(TypedDict, total=False):",
        '    """The keys of a database, as in a file."""',
        "",
    ]
    for key, field in Keys.model_fields.items():
        found = _choices(key) if kind(field) == "choice" else TYPES[kind(field)]
        lines.append(f"    {key}: {found}{' | None' if field.default is None else ''}")
    return "\n".join(lines) + "\n"


def _choices(key: str) -> str:
    definition = schema()["definitions"][key]
    values = [value for each in (definition, *definition.get("anyOf", ())) for value in each.get("enum", ())]
    flag = any("boolean" in str(each.get("type")) for each in (definition, *definition.get("anyOf", ())))
    words = ", ".join(f'"{value}"' for value in dict.fromkeys(values) if isinstance(value, str))
    flag = flag or any(isinstance(value, bool) for value in values)
    return f"Literal[{words}]" + (" | bool" if flag else "")


def reference() -> str:
    """Return docs/reference.md."""
    lines = [
        "# Settings",
        "",
        "Every key of a profile, and of each database under `databases:`. Keys of `create_engine` keep their",
        "names and meanings. An environment variable overrides a key: `DBCONFIG_POOL_SIZE=5`,",
        "`DBCONFIG_DATABASES__ANALYTICS__ECHO=true`. `dbconfig show` prints where each value comes from.",
        "",
        "A duration is a number of seconds, or `500ms`, `5s`, `30m`, `1h`, `1d`. Besides the keys on this page, a",
        "profile may have `extends: NAME` (the profile that it builds on), `databases:`, and `$schema` (for editors).",
        "",
        "`key: ~` removes a value set by a lower layer. Inside `connect_args`, `dialect_options`, and",
        "`execution_options`, it is a value: `prepare_threshold: ~` (or `null`) reaches the driver as `None`,",
        "even over a lower layer's `prepare_threshold: 5`; `connect_args: ~` removes all of them. A name without a",
        "value is an error.",
    ]
    for name, (title, text) in GROUPS.items():
        lines += ["", f"## {title}", "", text]
        for key, field in Keys.model_fields.items():
            if group(field) == name:
                lines += ["", f"### `{key}`", "", f"{_linked(description(key, field))}", ""]
                kind, comma, limits = words(field).partition(", from" if ", from" in words(field) else ", more than")
                lines += [f"*{kind}*{comma}{limits} · default: {_shown(key)} · `DBCONFIG_{key.upper()}`"]
                lines += [f"· {_systems(key)}", "", "```yaml", example(key), "```"]
    return "\n".join(lines) + "\n"


SYSTEMS = {
    "sqlite:///data/app.db": "SQLite",
    "postgresql://app@db.internal/shop": "PostgreSQL",
    "mysql://app@db.internal/shop": "MySQL",
    "mariadb://app@db.internal/shop": "MariaDB",
    "duckdb:///data/facts.duckdb": "any other database",
}
# What else a key needs in order to apply.
WITH = {
    "sslrootcert": {"sslmode": "verify-full"},
    "sslcert": {"sslmode": "require", "sslkey": "certificates/client.key"},
    "sslkey": {"sslmode": "require", "sslcert": "certificates/client.crt"},
    "slow_statement_plan": {"slow_statement": "500ms"},
}


def example(key: str) -> str:
    """Return a line of YAML that sets a key."""
    value = EXAMPLES[key][0]
    return f"{key}: {value if isinstance(value, str) else json.dumps(value)}"


def applies(key: str, url: str) -> bool:
    """Say whether a database of this system accepts a key, with one of its examples, by loading a profile."""
    if key in ("url", "drivername"):
        return True
    system = url.partition(":")[0]
    address = {"drivername": system, "database": "shop"} if key in ("username", "host", "database") else {"url": url}
    return any(_is_accepted({**address, **WITH.get(key, {}), key: value}) for value in EXAMPLES[key])


def _is_accepted(texts: dict[str, object]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "development.yaml").write_text(json.dumps(texts), encoding="utf-8")
        try:
            load("development", path=folder, environ={"DB_PASSWORD": "secret"})
        except ConfigError as error:
            # The key applies even where the example is another system's, such as the name of a variable.
            return not any(each.slug in ("not-applicable", "given-twice") for each in error.problems)
    return True


def _systems(key: str) -> str:
    if group(Keys.model_fields[key]) == "replica":
        key = "replicas"  # the other keys are accepted everywhere, and wait for them
    found = [name for url, name in SYSTEMS.items() if applies(key, url)]
    assert found, key  # no system accepts the example
    if len(found) == len(SYSTEMS):
        return "every database"
    return f"{', '.join(found[:-1])}, and {found[-1]}" if len(found) > 2 else " and ".join(found)


def errors() -> str:
    """Return docs/errors.md."""
    lines = [
        "# Problems and what to do",
        "",
        "Each message begins with the name of its kind in brackets. `dbconfig explain NAME` prints the same.",
    ]
    parts = (
        ("In the configuration", "Nothing is connected.", CONFIGURATION),
        ("Advice", "A warning at load and in `dbconfig validate`; a failure with `--strict`.", ADVICE),
        ("On the way to the database", "Told by `dbconfig check`, `ping` and `wait`, and in the notes of", CONNECTIONS),
    )
    for title, text, entries in parts:
        if entries is CONNECTIONS:
            text += " the exception that SQLAlchemy raises."
        lines += ["", f"## {title}", "", text]
        for slug, entry in entries.items():
            lines += [
                "",
                f"### {slug}",
                "",
                entry.meaning,
                "",
                "```",
                *entry.example.splitlines(),
                "```",
                "",
                entry.advice(),
            ]
    assert len(CATALOGUE) == sum(len(entries) for _, _, entries in parts)
    return "\n".join(lines) + "\n"


def _shown(key: str) -> str:
    value = shown_default(Keys.model_fields[key])
    return "–" if value == "-" else f"`{value}`"


def _linked(text: str) -> str:
    return re.sub(r" SQLAlchemy: (\S+)$", r" ([SQLAlchemy](\1))", text)


def main() -> None:
    logging.getLogger("dbconfig").setLevel(logging.ERROR)  # the examples are not production profiles
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
