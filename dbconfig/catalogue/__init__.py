"""Every kind of problem by its slug: what it means, an example, what to do."""

from __future__ import annotations

from dbconfig.catalogue.advice import ADVICE
from dbconfig.catalogue.configuration import CONFIGURATION
from dbconfig.catalogue.connections import CONNECTIONS
from dbconfig.catalogue.entry import Entry

__all__ = ["ADVICE", "CATALOGUE", "CONFIGURATION", "CONNECTIONS", "Entry"]

CATALOGUE: dict[str, Entry] = {**CONFIGURATION, **ADVICE, **CONNECTIONS}
