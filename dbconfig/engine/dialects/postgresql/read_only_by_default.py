"""Whether the configuration makes every transaction read-only: then a rejected write says nothing about the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dbconfig.settings import client_defaults

if TYPE_CHECKING:
    from dbconfig.settings.database import DatabaseSettings

_NAME: Final = "default_transaction_read_only"
_OPTION: Final = re.compile(rf"{_NAME}\s*=\s*(\w+)", re.IGNORECASE)
_ON: Final = ("on", "true", "yes", "1", "t", "y")  # https://www.postgresql.org/docs/current/config-setting.html


def declared(settings: DatabaseSettings) -> bool:
    """Return whether the profile, or PGOPTIONS, sets default_transaction_read_only."""
    of_asyncpg: Any = settings.connect_args.get("server_settings")
    for given in (settings.variables, of_asyncpg if isinstance(of_asyncpg, Mapping) else {}):
        for name, value in given.items():
            if str(name).lower() == _NAME:
                return str(value).lower() in _ON
    outside = client_defaults.defaults(settings).get("options")
    own = (*settings.address.query.get("options", ()), settings.connect_args.get("options"))
    words = _OPTION.findall(" ".join(str(one) for one in (outside and outside.value, *own) if one))
    return bool(words) and words[-1].lower() in _ON
