"""`dbconfig show`: each value of a profile and where it came from; with `--engine` or `--diff` other views of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dbconfig.cli import value_display
from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FAILED, OK
from dbconfig.cli.offline import Survey, named, survey
from dbconfig.cli.output import placed
from dbconfig.config.extends import read_layers
from dbconfig.config.interpolation import needs
from dbconfig.config.layering import lay
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import BUILT_IN, Location
from dbconfig.errors.redaction import shown
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.keys import CONNECTION_KEYS
from dbconfig.settings.loaded_profile import DEFAULT
from dbconfig.settings.located_values import Entry, MappingNode, Scalar


def run(context: Context) -> int:
    if context.arguments.diff is not None:
        from dbconfig.cli.commands.show.difference import compare

        return compare(context, context.arguments.diff)
    if context.arguments.engine:
        from dbconfig.cli.commands.show.create_engine import write_calls

        return write_calls(context)
    tree, _ = lay(read_layers(context.folder, context.selection.name)[0], context.environment)
    if context.is_json:
        document = {
            "profile": context.selection.name,
            "reason": context.reason,
            "databases": {name: _described(settings, tree, name) for name, settings in context.databases().items()},
        }
        context.out.json("show", document)
        return OK
    try:
        databases, unset = context.databases(), None
    except ConfigError as error:
        # Values that do not depend on the missing variables are shown, above the problems.
        databases, unset = _without_variables(context, error)
    variables: dict[str, list[str]] = {}
    for need in needs(tree, context.environment):
        variables.setdefault(need.key, []).append(f"${{{need.name}}}")
    context.out.line(context.headline())
    for name, settings in databases.items():
        context.out.line()
        context.out.line(("bold", f"database {name}"))
        rows = list(_rows(settings, tree, name, variables, unset, every=context.arguments.all))
        context.out.table(rows, ("KEY", "VALUE", "FROM"), indent="  ")
    _hint(context, databases)
    if unset is not None:
        context.out.line()
        context.out.problems(unset.error.problems)
        return FAILED
    return OK


@dataclass(frozen=True)
class _Unset:
    """A profile with unset variables: what is known about it, and the error that lists them."""

    known: Survey
    error: ConfigError


def _without_variables(context: Context, error: ConfigError) -> tuple[dict[str, DatabaseSettings], _Unset]:
    if any(problem.slug not in ("unset-variable", "empty-variable") for problem in error.problems):
        raise error
    known = survey(context.folder, context.environment, context.selection.name, own=True)
    if known.profile is None:
        raise error
    return context.databases_of(known.profile), _Unset(known, error)


def _hint(context: Context, databases: dict[str, DatabaseSettings]) -> None:
    overridden = sorted(
        {
            layers[0].variable
            for settings in databases.values()
            for key in DatabaseSettings.model_fields
            if len(layers := settings.layers(key)) > 1 and layers[0].variable.startswith("DBCONFIG_")
        }
    )
    if overridden:
        context.out.note(f"note: the environment overrides the files: {', '.join(overridden)}")


def _rows(
    settings: DatabaseSettings,
    tree: MappingNode,
    name: str,
    variables: dict[str, list[str]],
    unset: _Unset | None,
    *,
    every: bool,
) -> Iterator[tuple[str, ...]]:
    for key in DatabaseSettings.model_fields:
        value = value_display.setting(settings, key)
        # A key that a database of another system does not inherit is empty, although it is set.
        layers = settings.layers(key) if value not in (None, {}) else ()
        if not layers and not every and (value in (None, {}) or _group(key) not in ("pool", "timeout")):
            continue
        under = _values_beneath(tree, name, key)
        origin = _origin(settings, key) if layers or value not in (None, {}) else "default"
        if variables.get(value_display.key_path(name, key)) and not settings.origin(key).variable:
            origin += f" ({', '.join(variables[value_display.key_path(name, key)])})"
        if len(layers) > 1 and not every:
            origin += f" (overrides {_layer(layers[1], under, 1)})"
        yield key, _shown(value, key, value_display.key_path(name, key), unset), origin
        if key == "replicas":
            for number, own in enumerate(value):
                text = named(value_display.text(own)) if unset is not None else value_display.text(own)
                yield f"  replica {number + 1}", text, value_display.replica_place(settings, number)
        if every:
            for depth, layer in enumerate(layers[1:], start=1):
                yield "", "", f"overrides {_layer(layer, under, depth)}"


def _shown(value: Any, key: str, path: str, unset: _Unset | None) -> str:
    if key == "replicas":
        return f"{len(value)}"
    if unset is None:
        return value_display.text(value, key)
    names = unset.known.unknown(path) if key != "url" else ()
    return " ".join(f"${{{each}}}" for each in names) or named(value_display.text(value, key))


def _origin(settings: DatabaseSettings, key: str) -> str:
    if key == "protected" and settings.protected and settings.origin(key) == BUILT_IN:
        return "default (the profile is named production)"
    return value_display.place(settings.origin(key))


def _layer(layer: Location, values: list[str], depth: int) -> str:
    value = values[depth] if depth < len(values) else ""
    return f"{value_display.place(layer)} = {value}" if value else value_display.place(layer)


def _group(key: str) -> str:
    extra = DatabaseSettings.model_fields[key].json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else ""


def _values_beneath(tree: MappingNode, name: str, key: str) -> list[str]:
    """Return the value of a key in each layer, the effective one first, without secrets."""
    entry: Entry | None = None
    if name != DEFAULT:
        databases = tree.get("databases")
        node = databases.node if databases is not None else None
        inner = node.get(name) if isinstance(node, MappingNode) else None
        entry = inner.node.get(key) if inner is not None and isinstance(inner.node, MappingNode) else None
    if entry is None and (name == DEFAULT or key not in CONNECTION_KEYS):
        entry = tree.get(key)
    found = []
    while entry is not None:
        found.append(shown(key, str(entry.node.value)) if isinstance(entry.node, Scalar) else "")
        entry = entry.beneath
    return found


def _described(settings: DatabaseSettings, tree: MappingNode, name: str) -> dict[str, Any]:
    return {
        key: {
            "value": value_display.setting(settings, key),
            "origin": placed(settings.origin(key)),
            "overrides": [
                {"origin": placed(layer), "value": value or None}
                for layer, value in zip(
                    settings.layers(key)[1:], _values_beneath(tree, name, key)[1:] + [""] * 9, strict=False
                )
            ],
        }
        for key in DatabaseSettings.model_fields
    }
