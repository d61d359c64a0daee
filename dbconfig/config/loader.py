"""Load a profile: from its name to validated, frozen settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dbconfig.config.active_profile import Selection, select
from dbconfig.config.extends import read_layers
from dbconfig.config.folder import Folder, find_folder, shown_path
from dbconfig.config.interpolation import interpolate
from dbconfig.config.layering import lay, reconciled, without_nulls
from dbconfig.config.risky_settings import advice
from dbconfig.config.sharding import unfold
from dbconfig.config.validation import Validation
from dbconfig.settings.environment_variables import Environment
from dbconfig.settings.loaded_profile import AnyProfile
from dbconfig.settings.located_values import places

if TYPE_CHECKING:
    from dbconfig.settings.profile import Profile

_log = logging.getLogger("dbconfig.loader")


def load(
    profile: str | None = None, *, path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> Profile:
    """Load and validate a profile.

    Args:
        profile: its name; None uses `ENVIRONMENT`, or `development` if that is not set.
        path: the configuration folder; None searches for `config/` beside or above the script or the working directory.
        environ: the environment variables; None uses the process's own.

    Raises:
        ProfileNotFound: the profile does not exist.
        ConfigError: the configuration is invalid; `.problems` lists everything that is wrong.

    >>> load("production", path="config", environ={"DATABASE_URL": "postgresql://app@db/shop"}).databases["default"].pool_size
    20
    """
    from dbconfig.settings.profile import Profile  # its imports are slow

    return Profile.of(load_lean(profile, path=path, environ=environ))


def load_lean(
    profile: str | None = None, *, path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> AnyProfile:
    """Do what `load` does, but return the internal form of the profile, which is cheaper to create."""
    folder = find_folder(path)
    environment = read_environment(folder, environ)
    selection = select(profile, environment, folder)
    loaded = load_selected(folder, environment, selection)
    for warning in advice(loaded):
        _log.warning(
            "%s: profile %s: %s",
            warning.location,
            loaded.name,
            warning.message,
            extra={"profile": loaded.name, "place": str(warning.location), "slug": warning.slug},
        )
    return loaded


def read_environment(folder: Folder, environ: Mapping[str, str] | None) -> Environment:
    """Return the environment over the `.env` of the project."""
    return Environment(environ, folder.dotenv, shown_path(folder.dotenv))


def load_selected(folder: Folder, environment: Environment, selection: Selection) -> AnyProfile:
    """Load a profile that is known to exist, without warnings; `load` documents the errors."""
    documents, problems = read_layers(folder, selection.name)
    stacked, misspelt = lay(documents, environment)
    laid, empty = without_nulls(stacked)
    tree, unresolved = interpolate(laid, environment)
    order = [document.location.source for document in documents]
    unfolded, sharded = unfold(tree, order)
    validation = Validation(reconciled(unfolded, order), selection.name, folder, order)
    validation.take([*problems, *misspelt, *empty, *unresolved, *sharded])
    profile = validation.run().settle({**places(unfolded), **places(laid)}, folder.project, selection.reason)
    for database in profile.databases.values():
        for settings in (database, *database.replicas):
            if settings.password is not None:
                settings.password.bind(environment)
    return profile
