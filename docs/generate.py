"""Write what is generated: config/, docs/reference.md, docs/errors.md, and the picture of the spike.

Run ``python docs/generate.py`` after a change to a setting, a kind of problem, or the benchmarks; a test fails until
then.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dbconfig.cli.commands.init import templates
from dbconfig.cli.commands.schema import text as schema_text
from dbconfig.config.json_schema import schema
from dbconfig.errors.catalogue import ADVICE, CATALOGUE, CONFIGURATION, CONNECTIONS
from dbconfig.settings.key_kinds import description, kind, shown_default, words
from dbconfig.settings.keys import Keys, group

sys.path.insert(0, str(Path(__file__).parent))
import spike_picture

ROOT = Path(__file__).parent.parent
GROUPS = {
    "connection": ("Connection", "Where the database is. `url`, or the parts, or a URL completed by parts."),
    "tls": ("TLS", "One vocabulary for every driver; docs/security.md says what each word verifies."),
    "pool": ("Pool", "How many connections are kept, and how long."),
    "timeout": ("Timeouts and session variables", "One vocabulary for three database systems."),
    "replica": ("Replicas", "What `session(read_only=True)` reads from; each inherits the whole of its primary."),
    "observability": ("Observability", "What others see of this program; docs/observability.md shows it."),
    "engine": ("Engine", "The other arguments of `create_engine`, under their own names."),
    "session": ("Session", "What sessions do, and what is refused."),
}


def files() -> dict[Path, str]:
    """Return everything that is generated, by its place."""
    config = {ROOT / "config" / name: text for name, text in templates.profiles().items()}
    return {
        **config,
        ROOT / "config" / "schema.json": schema_text(),
        ROOT / "docs" / "reference.md": reference(),
        ROOT / "docs" / "errors.md": errors(),
        spike_picture.PICTURE: spike_picture.picture(),
        ROOT / "dbconfig" / "settings" / "typed_dict.py": typed_dict(),
    }


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
        '"""The keys of a profile for type checkers: written by docs/generate.py, imported by nobody at run time."""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, Literal, TypedDict",
        "",
        "",
        "class ProfileKeys(TypedDict, total=False):",
        '    """The keys of a database, as they would stand in a file."""',
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
        "Every key of a profile, and of each database under `databases:`. Keys that `create_engine` has keep its",
        "name and its meaning. An environment variable overrides a key: `DBCONFIG_POOL_SIZE=5`,",
        "`DBCONFIG_DATABASES__ANALYTICS__ECHO=true`. `dbconfig show` says where each value comes from.",
        "",
        "A duration is a number of seconds, or `500ms`, `5s`, `30m`, `1h`, `1d`. Beside the keys of this page a",
        "profile may have `extends: NAME` (what it is laid over), `databases:` and `$schema` (for editors).",
        "",
        "`key: ~` takes back what a lower layer says of a setting. Within `connect_args`, `dialect_options` and",
        "`execution_options` it is a value: `prepare_threshold: ~` (or `null`) reaches the driver as `None`, also over",
        "a lower layer's `prepare_threshold: 5`; `connect_args: ~` takes all of them back. A name with nothing behind",
        "it is an error.",
    ]
    for name, (title, text) in GROUPS.items():
        lines += ["", f"## {title}", "", text]
        for key, field in Keys.model_fields.items():
            if group(field) == name:
                lines += ["", f"### `{key}`", "", f"{_linked(description(key, field))}", ""]
                kind, comma, limits = words(field).partition(", from" if ", from" in words(field) else ", more than")
                lines.append(f"*{kind}*{comma}{limits} · default: {_shown(key)} · `DBCONFIG_{key.upper()}`")
    return "\n".join(lines) + "\n"


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
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
