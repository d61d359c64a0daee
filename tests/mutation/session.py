"""The driver's end of a pytest session that forks: see forked.py."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.mutation.changes import Change


class ForkingSession:
    """A pytest process that has collected the tests of a copy of the project."""

    def __init__(self, folder: Path, environ: Mapping[str, str], tests: Sequence[str]) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        options = ["-q", "-p", "no:cacheprovider", "-p", "tests.mutation.forked", "--continue-on-collection-errors"]
        options += ["-o", "faulthandler_timeout=0", "-o", "tmp_path_retention_policy=none"]
        with (folder / ".session").open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=folder,
                env={**environ, "MUTANTS_PIPES": f"{orders} {answers}"},
                pass_fds=(orders, answers),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        os.close(orders)
        os.close(answers)
        self._lines = os.fdopen(self._answers)
        self.folder = folder
        self._ready = False

    def run(
        self,
        change: tuple[Change, str] | None,
        tests: Sequence[str],
        without: Iterable[str],
        limits: Mapping[str, float],
        limit: float,
    ) -> tuple[int | str | None, list[list[str]]]:
        """Run tests until one fails, in a child that has made the change.

        Args:
            change: a change that is in the file of the copy already, and what the file said before.
            limits: seconds for each test, and `limit` for others.

        Returns:
            pytest's exit code (None: a test hung; a word: the change needs a process of its own), and the tests that
            ["began", …] or ["failed", …].
        """
        order: dict[str, Any] = {"tests": list(tests), "without": list(without), "changed": None, "limit": limit}
        order["limits"] = {test: limits[test] for test in tests if test in limits}
        if change is not None:
            made, original = change
            beside = made.apply_beside(original.encode()).decode()
            order["changed"] = {"path": str(self.folder / made.path), "original": original, "beside": beside}
        os.write(self._orders, (json.dumps(order) + "\n").encode())
        answer = self._answer()
        return answer["code"], answer["events"]

    def wait(self) -> None:
        """Wait until all is imported: a file that changes before is imported with the change."""
        if not self._ready:
            self._ready = bool(self._answer())

    def _answer(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise RuntimeError(f"the session of tests has ended:\n{(self.folder / '.session').read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        os.close(self._orders)
        self._process.wait()
        self._lines.close()
