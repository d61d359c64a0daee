"""Offline examination of a profile, without its environment: its problems, and the variables that it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dbconfig.config.active_profile import Selection
from dbconfig.config.extends import read_layers
from dbconfig.config.folder import Folder
from dbconfig.config.interpolation import Need, needs
from dbconfig.config.layering import PREFIX, lay
from dbconfig.config.loader import load_selected
from dbconfig.config.risky_settings import advice
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Location, Problem
from dbconfig.settings.environment_variables import Environment, Variable
from dbconfig.settings.loaded_profile import AnyProfile

# Possible values of an unset variable, tried in turn until its key accepts one; `{}` is its name.
_STAND_INS: Final = (
    "unset.{}",
    "1",
    "true",
    "postgresql://unset.{}/unset.{}",
    "mysql://unset.{}/unset.{}",
    "sqlite:///unset.{}",
)
_MARK: Final = "unset."


class _Offline(Environment):
    """The environment, with stand-ins for the variables that a profile needs and that are not set."""

    __slots__ = ("_real", "own", "stand_ins")

    def __init__(self, real: Environment, *, own: bool) -> None:
        super().__init__({})
        self._real = real
        self.own = own  # whether DBCONFIG_… applies to this profile
        self.stand_ins: Mapping[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(name for name in self._real if self.own or not name.startswith(PREFIX))

    def get(self, name: str) -> Variable | None:
        found = self._real.get(name) if self.own or not name.startswith(PREFIX) else None
        if name in self.stand_ins and (found is None or not found.value):
            text = _STAND_INS[min(self.stand_ins[name], len(_STAND_INS) - 1)].replace("{}", name)
            return Variable(name, text, Location("environment", variable=name))
        return found


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known about a profile.

    Attributes:
        profile: None if it cannot be loaded, or depends too much on variables that are not set.
        problems: those that do not depend on the values of variables.
        warnings: advice.
        needs: the variables that it refers to.
        unset: the names of those that are required and not set, or empty.
    """

    name: str
    profile: AnyProfile | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    needs: tuple[Need, ...]
    unset: tuple[str, ...]

    def unknown(self, key: str) -> tuple[str, ...]:
        """Return the unset variables that the value of a key depends on."""
        return tuple(need.name for need in self.needs if need.name in self.unset and need.key == key)


def survey(folder: Folder, environment: Environment, name: str, *, own: bool) -> Survey:
    """Examine a profile offline.

    Args:
        folder: of the profiles.
        environment: where variables may be set.
        name: of the profile.
        own: whether it is the selected profile, to which the `DBCONFIG_…` variables apply.
    """
    offline = _Offline(environment, own=own)
    try:
        documents, _ = read_layers(folder, name)
    except ConfigError as error:
        return Survey(name, None, error.problems, (), (), ())
    found = needs(lay(documents, offline)[0], offline)
    unset = tuple(dict.fromkeys(need.name for need in found if need.required and not _is_set(offline, need.name)))
    profile, problems = _load(folder, offline, name, [need for need in found if need.name in unset and not need.late])
    warnings = tuple(_certain(advice(profile), found, unset, profile)) if profile is not None else ()
    return Survey(name, profile, problems, warnings, found, unset)


def _is_set(environment: Environment, name: str) -> bool:
    variable = environment.get(name)
    return variable is not None and variable.value != ""


def _load(
    folder: Folder, environment: _Offline, name: str, unset: list[Need]
) -> tuple[AnyProfile | None, tuple[Problem, ...]]:
    environment.stand_ins = {need.name: 0 for need in unset}
    for _ in range(len(_STAND_INS)):
        try:
            return load_selected(folder, environment, Selection(name, "survey")), ()
        except ConfigError as error:
            blamed = {need.name for need in unset if any(_concerns(problem, need) for problem in error.problems)}
            certain = tuple(
                problem for problem in error.problems if not any(_concerns(problem, need) for need in unset)
            )
            if not blamed:
                return None, certain
            environment.stand_ins = {key: turn + (key in blamed) for key, turn in environment.stand_ins.items()}
    return None, certain


def _concerns(problem: Problem, need: Need) -> bool:
    """Return whether a problem may be caused by the stand-in, not by the file."""
    if problem.key == need.key:
        # If only a part of a URL is unknown, the rest can be checked.
        return need.whole or not need.key.endswith("url") or problem.slug in ("invalid-url", "out-of-range")
    about_address = need.whole and need.key.rpartition(".")[2] in ("url", "drivername")
    return about_address and problem.slug in ("not-applicable", "invalid-value", "unknown-key", "missing-value")


def _certain(
    warnings: list[Problem], found: tuple[Need, ...], unset: tuple[str, ...], profile: AnyProfile
) -> Iterator[Problem]:
    whole = {need.key for need in found if need.whole and need.name in unset}
    assumed = {
        f"databases.{name}." if name != "default" else ""
        for name, settings in profile.databases.items()
        if _MARK in str(settings.address.host or "")
    }
    for warning in warnings:
        database = warning.key.rpartition(".")[0]
        prefix = f"{database}." if database.startswith("databases.") else ""
        if warning.key not in whole and not (warning.slug == "tls-not-verified" and prefix in assumed):
            yield warning


def named(text: str) -> str:
    """Return a text with the stand-ins replaced by their references."""
    import re

    whole = re.sub(r"(?:postgresql|mysql)://unset\.(\w+)/unset\.\1", r"${\1}", text)
    return re.sub(r"(?:sqlite:///)?unset\.([A-Za-z_]\w*)", r"${\1}", whole)


def described_needs(one: Survey) -> list[dict[str, Any]]:
    """Return the variables of a profile for JSON."""
    return [
        {
            "name": name,
            "keys": [need.key for need in one.needs if need.name == name],
            "required": any(need.required for need in one.needs if need.name == name),
            "set": name not in one.unset,
        }
        for name in dict.fromkeys(need.name for need in one.needs)
    ]
