"""Find the connection of development, and the selected profile, in a `.env` file or in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dbconfig.cli.commands.init import templates
from dbconfig.config.active_profile import VARIABLE
from dbconfig.config.profile_files import FOLDER, SHARED, is_name
from dbconfig.errors.printable import quoted
from dbconfig.settings.environment_variables import Environment, Variable
from dbconfig.settings.known_drivers import PORTS
from dbconfig.settings.url_parsing import InvalidURL, parse_url

_URLS: Final = ("DATABASE_URL", "SQLALCHEMY_DATABASE_URL", "SQLALCHEMY_DATABASE_URI", "DB_URL", "POSTGRES_URL")
# The names of the parts in container images of the systems, and in common templates.
_PREFIXES: Final = {"POSTGRES": "postgresql", "MYSQL": "mysql", "MARIADB": "mariadb"}
_PARTS: Final = {
    "username": ("USER", "USERNAME"),
    "password": ("PASSWORD",),
    "host": ("HOST", "SERVER", "HOSTNAME"),
    "port": ("PORT",),
    "database": ("DB", "DATABASE", "NAME"),
}
_USUAL: Final = {
    "postgresql": {"username": "postgres", "host": "localhost", "database": "postgres"},
    "mysql": {"username": "root", "host": "localhost"},
    "mariadb": {"username": "root", "host": "localhost"},
}
# Common names of profiles, and our profile that each resembles.
_LIKE: Final = {
    **dict.fromkeys(("dev", "devel", "local", "docker", "compose"), "development"),
    **dict.fromkeys(("test", "tests", "ci"), "testing"),
    **dict.fromkeys(("prod", "live", "stage", "staging", "preview"), "production"),
}


@dataclass(frozen=True)
class Plan:
    """Development's connection, production's variable, and the profile that ENVIRONMENT selects."""

    connection: str = templates.DEVELOPMENT_CONNECTION
    production: str = "DATABASE_URL"
    notes: tuple[str, ...] = ()
    more: Mapping[str, str] | None = None  # the files of further profiles


def plan(project: Path, environ: Mapping[str, str], *, from_process: bool = False) -> Plan:
    """Return what to write; the values of variables are read, but never shown.

    Args:
        project: the folder of the `.env`.
        environ: the variables of the process; they may select the profile.
        from_process: read the connection from them too.

    Raises:
        ValueError: `from_process`, and no variable names a database.
    """
    environment = Environment(environ if from_process else {}, project / ".env", ".env")
    found = _connection(environment)
    if from_process and found.connection == templates.DEVELOPMENT_CONNECTION:
        looked = ", ".join((*_URLS, *(f"{prefix}_USER" for prefix in _PREFIXES)))
        raise ValueError(*(found.notes or (f"neither the environment nor .env names a database; looked for {looked}",)))
    selected = environment.get(VARIABLE)
    where = f"{VARIABLE} of .env"
    if environ.get(VARIABLE):
        name, where = environ[VARIABLE], f"{VARIABLE} of the environment"
    else:
        name = selected.value if selected is not None else ""
    if not name or f"{name}.yaml" in templates.profiles():
        return found
    file = f"{FOLDER}/{name}.yaml"
    if not is_name(name) or name == SHARED:
        note = f"note: {where} is {quoted(name)}, which cannot be a profile's name"
        return replace(found, notes=(*found.notes, note))
    like = _LIKE.get(name.lower())
    if like is None:
        note = f"note: {where} is {quoted(name)}, but this profile does not exist"
        help = f"write {file}, such as `extends: production`"
        return replace(found, notes=(*found.notes, f"{note}: {help}"))
    text = templates.LIKE_ANOTHER.format(like=like)
    return replace(found, notes=(*found.notes, f"{where} selects {name}: it is as {like}"), more={file: text})


def _connection(environment: Environment) -> Plan:
    # A developer's .env is for development; production must not use the same database.
    production = "PRODUCTION_DATABASE_URL"
    for name in _URLS:
        variable = environment.get(name)
        if variable is None or not variable.value:
            continue
        try:
            backend = parse_url(variable.value).drivername
        except InvalidURL as error:
            return Plan(production=production, notes=(f"note: {name} {_source(variable)} is not used: {error}",))
        note = f"development uses {name} {_source(variable)} ({backend}); production uses {production}"
        return Plan(templates.FROM_URL.format(name=name, source=_source(variable)), production, (note,))
    for prefix, system in _PREFIXES.items():
        names = _names(environment, prefix)
        if "username" in names or "password" in names:
            variable = environment.get(next(iter(names.values())))
            source = _source(variable) if variable is not None else ""
            return Plan(_from_parts(system, prefix, names, source), notes=(f"development uses {prefix}_… {source}",))
    return Plan()


def _names(environment: Environment, prefix: str) -> dict[str, str]:
    """Return the name of the variable of each part that the `.env` has."""
    found: dict[str, str] = {}
    for part, endings in _PARTS.items():
        for ending in endings:
            variable = environment.get(f"{prefix}_{ending}")
            if part not in found and variable is not None and variable.value:
                found[part] = variable.name
    return found


def _source(variable: Variable) -> str:
    return "from .env" if variable.location.source == ".env" else "from the environment"


def _from_parts(system: str, prefix: str, names: Mapping[str, str], source: str) -> str:
    lines = [f"drivername: {system}   # the parts come {source}; special characters in them need no escaping"]
    for part, endings in _PARTS.items():
        name = names.get(part, f"{prefix}_{endings[0]}")
        usual = str(PORTS[system]) if part == "port" else _USUAL[system].get(part)
        if part in names or usual is not None:
            lines.append(f"{part}: ${{{name}}}" if usual is None else f"{part}: ${{{name}:-{usual}}}")
    return "\n".join(lines)
