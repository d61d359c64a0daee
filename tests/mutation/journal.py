"""What a run has tried, written down as it goes.

After an interruption, `--continue` tries only the rest; when tests have been written since, `--again` tries only what
nothing had noticed.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.mutation.changes import Change
from tests.mutation.workshop import KILLS, Result


class Journal:
    """The results of one run, in a file of lines.

    Args:
        path: of the file, which is written anew unless an interrupted run continues.
        root: of the project.
        arguments: of the run: a run with others is another one.
        continues: the results so far are kept.
        again: of these, what was noticed.
    """

    def __init__(
        self, path: Path, root: Path, arguments: Mapping[str, Any], *, continues: bool = False, again: bool = False
    ) -> None:
        self._path, self._root = path, root
        self._results: dict[tuple[str, str, str], Result] = {}
        if continues or again:
            self._read(dict(arguments))
            if again:
                self._results = {key: each for key, each in self._results.items() if each.outcome in KILLS}
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(arguments) + "\n")

    def _read(self, arguments: dict[str, Any]) -> None:
        text = self._path.read_text() if self._path.exists() else ""
        lines = text.splitlines()
        if not lines:
            raise SystemExit("there is no run to continue")
        if json.loads(lines[0]) != arguments:
            raise SystemExit(f"the run to continue has other arguments: {lines[0]}")
        if not text.endswith("\n"):  # it was cut
            self._path.write_text(text + "\n")
        for line in lines[1:]:
            with suppress(ValueError):  # of a line that was cut
                path, name, digest, outcome, test = json.loads(line)
                self._results[path, name, digest] = Result(outcome, test)

    def result(self, change: Change) -> Result | None:
        """Return what has come of a change, if its file is still the same."""
        return self._results.get(self._key(change))

    def add(self, change: Change, result: Result) -> None:
        with self._path.open("a") as file:
            print(json.dumps([*self._key(change), result.outcome, result.test]), file=file)

    def _key(self, change: Change) -> tuple[str, str, str]:
        return change.path, change.name, hashlib.sha256((self._root / change.path).read_bytes()).hexdigest()
