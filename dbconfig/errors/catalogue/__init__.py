"""Every kind of problem by its slug: what it means, an example, what to do."""

from __future__ import annotations

from dbconfig.errors.catalogue.configuration import CONFIGURATION
from dbconfig.errors.catalogue.connections import CONNECTIONS
from dbconfig.errors.catalogue.entry import Entry
from dbconfig.errors.catalogue.warnings import ADVICE

__all__ = ["ADVICE", "CATALOGUE", "CONFIGURATION", "CONNECTIONS", "Entry"]

CATALOGUE: dict[str, Entry] = {**CONFIGURATION, **ADVICE, **CONNECTIONS}
