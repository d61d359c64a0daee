"""Whether a database is reached by an asynchronous driver."""

from __future__ import annotations

from dbconfig.errors import ConfigError
from dbconfig.settings.database import DatabaseSettings


def is_asynchronous(settings: DatabaseSettings, wanted: bool | None = None) -> bool:
    """Return what is wanted, or else whether the profile names an asynchronous driver.

    Raises:
        ConfigError: the driver cannot be used.
    """
    if wanted is not None:
        return wanted
    try:
        settings.driver()
    except ConfigError as error:
        if error.problems[0].slug != "async-driver":
            raise
        return True
    return False
