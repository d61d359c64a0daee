"""`python -m dbconfig`: the command line."""

from __future__ import annotations

import sys

from dbconfig.cli import main

if __name__ == "__main__":
    sys.exit(main())
