"""Random numbers that no application seeds, and whose drawing changes no generator of the application's.

Connections are opened in the background, at times that the application does not choose: one draw from the generator of
Python's `random` there would change the numbers of an application that has seeded it. The other way round, workers that
all call `random.seed(0)` would retry at the same moments.
"""

from __future__ import annotations

import random
from typing import Final

# Numbers of the operating system have no state that threads share, or that a forked process would repeat.
chance: Final = random.SystemRandom()
