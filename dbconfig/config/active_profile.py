"""The active profile: the argument, else ENVIRONMENT, else development."""

from __future__ import annotations

from typing import Final

from dbconfig.config.folder import UNSET, Folder
from dbconfig.config.profile_files import SHARED, is_name
from dbconfig.errors import ProfileNotFound
from dbconfig.errors.light_dataclass import dataclass
from dbconfig.errors.printable import did_you_mean, quoted, suggest
from dbconfig.errors.problem import Location, Problem
from dbconfig.errors.redaction import shown_name
from dbconfig.settings.environment_variables import Environment

VARIABLE: Final = "ENVIRONMENT"


@dataclass(frozen=True, slots=True)
class Selection:
    """A profile's name, and why it was selected."""

    name: str
    reason: str
    location: Location | None = None


def select(profile: str | None, environment: Environment, folder: Folder) -> Selection:
    """Return the profile to load: the argument, else ENVIRONMENT, else `development`.

    Raises:
        ProfileNotFound: no profile has this name; the notes say where it came from and which profiles exist.
    """
    variable = environment.get(VARIABLE) if profile is None else None
    if profile is not None:
        selection = Selection(profile, "argument")
    elif variable is not None:
        selection = Selection(variable.value, str(variable.location), variable.location)
    else:
        selection = Selection(UNSET, f"{VARIABLE} is not set: {UNSET}")
    _check_name(selection, folder)
    return selection


def _check_name(selection: Selection, folder: Folder) -> None:
    name, known = selection.name, folder.profiles()
    if name in known and is_name(name) and name != SHARED:
        return  # the usual case: what follows is for messages
    listed = ", ".join(known) if known else "none"
    origin = {"argument": "the caller passed the name; ENVIRONMENT is ignored"}.get(
        selection.reason, f"the name comes from {selection.reason}"
    )
    notes = (origin, f"profiles in {folder.shown()}: {listed}")
    if not name.strip():
        problem = Problem(
            "profile-name",
            f"{'the name' if selection.reason == 'argument' else VARIABLE} is empty",
            selection.location,
            VARIABLE,
            f"unset it for {UNSET}, or name a profile",
            notes,
        )
        raise ProfileNotFound([problem])
    near = near_profile(name, known)
    help = did_you_mean(near)
    key = VARIABLE if selection.location is not None else ""
    if not is_name(name) or name == SHARED:
        letters = f"use letters, digits, `_`, and `-`, but not `{SHARED}`"
        message = f"{quoted(shown_name(name))} is not a valid profile name: {letters}"
        raise ProfileNotFound([Problem("profile-name", message, selection.location, key, help, notes)])
    made = f"make {folder.shown(name + '.yaml')}"
    message = f"profile {quoted(name)} does not exist"
    raise ProfileNotFound([Problem("unknown-profile", message, selection.location, key, help or made, notes)])


def near_profile(name: str, known: list[str]) -> str:
    """Return the profile that was probably meant: a near miss, or the full name for `prod`, `dev`, or `test`."""
    bare = name.strip().lower()
    longer = [each for each in known if len(bare) > 1 and each.lower().startswith(bare)]
    return suggest(bare, known, 0.75) or next(iter(longer), "")
