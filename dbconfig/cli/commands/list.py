"""`dbconfig list`: profiles, their databases and pools, and the variables that each needs."""

from __future__ import annotations

from typing import Any

from dbconfig.cli import value_display
from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FOUND, OK
from dbconfig.cli.offline import Survey, described_needs, named, survey
from dbconfig.cli.output import counted
from dbconfig.errors import ConfigError


def run(context: Context) -> int:
    selected, wrong = _selected(context)
    surveys = [
        survey(context.folder, context.environment, name, own=name == selected) for name in context.folder.profiles()
    ]
    if context.is_json:
        document = {
            "folder": context.folder.shown(),
            "selected": selected,
            "reason": context.reason if selected else None,
            "profiles": [_described(one, selected) for one in surveys],
        }
        context.out.json("list", document)
    else:
        rows = [row for one in surveys for row in _rows(one, selected)]
        context.out.table(rows, ("", "PROFILE", "DATABASE", "POOL", "NEEDS"))
        context.out.line()
        if selected:
            context.out.line(f"> selected: {selected} ({context.reason})")
        broken = [one.name for one in surveys if one.problems]
        if broken:
            context.out.line(f"! cannot be used: {', '.join(broken)}; `dbconfig validate --all` says why")
    if wrong is not None:
        raise wrong
    return FOUND if any(one.problems for one in surveys if one.name == selected) else OK


def _selected(context: Context) -> tuple[str | None, ConfigError | None]:
    """Return the selected profile, or why none is selected: the list is most useful when the name is wrong."""
    try:
        return context.selection.name, None
    except ConfigError as error:
        return None, error


def _rows(one: Survey, selected: str | None) -> list[tuple[str, ...]]:
    sign = ">" if one.name == selected else "!" if one.problems else ""
    wanted = ", ".join(_need(name, one) for name in dict.fromkeys(need.name for need in one.needs))
    if one.profile is None:
        what = counted(len(one.problems), "problem") if one.problems else "depends on variables"
        return [(sign, one.name, what, "", wanted)]
    rows: list[tuple[str, ...]] = []
    for name, settings in one.profile.databases.items():
        label = one.name if name == "default" else f"  {name}"
        first = not rows
        where = named(value_display.settings_address(settings))
        rows.append((sign if first else "", label, where, value_display.pool(settings), wanted if first else ""))
        if first and name != "default":
            rows.insert(0, (sign, one.name, "", "", wanted))
            rows[1] = ("", label, where, value_display.pool(settings), "")
    return rows


def _need(name: str, one: Survey) -> str:
    required = any(need.required for need in one.needs if need.name == name)
    return f"{name} (unset)" if name in one.unset else name if required else f"{name} (optional)"


def _described(one: Survey, selected: str | None) -> dict[str, Any]:
    databases = {
        name: {
            "address": named(value_display.settings_address(settings)),
            "backend": settings.backend,
            "pool": value_display.pool(settings),
            "protected": settings.protected,
        }
        for name, settings in (one.profile.databases.items() if one.profile is not None else ())
    }
    return {
        "name": one.name,
        "selected": one.name == selected,
        "databases": databases,
        "variables": described_needs(one),
        "problems": len(one.problems),
    }
