"""A copy of the project in which one change after the other is tried, and what its tests say to it."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from py_compile import PycInvalidationMode

from tests.mutation.changes import Change
from tests.mutation.session import ForkingSession

ROOT = Path(__file__).parents[2]
TEST_LIMIT = 150.0  # seconds after which a test hangs whose duration is not known, on a busy machine too
LIMIT = 900.0  # of a whole run, for what hangs between the tests
KILLS = ("killed", "hangs", "cannot be imported", "ends the run")
_UNWANTED = shutil.ignore_patterns(".git", ".venv*", ".mutants", ".*_cache", "__pycache__", "data", "dist", "build")


@dataclass(frozen=True)
class Result:
    """How a run of tests has ended: one of `KILLS`, "survived", "not executed", or "error" with pytest's exit code."""

    outcome: str
    test: str = ""  # that noticed


@dataclass
class Reliability:
    """Of the tests that have noticed something: those that pass without a change, and those of which that is unsure."""

    reliable: set[str] = field(default_factory=set)
    unreliable: list[str] = field(default_factory=list)


class Workshop:
    """A copy of the project.

    Args:
        limits: seconds after which each test hangs.
    """

    def __init__(self, folder: Path, limits: Mapping[str, float]) -> None:
        self.folder = folder
        self.imported = set[Change]()  # changes that needed a process of their own
        self._limits = limits
        self._session: ForkingSession | None = None
        self._made: tuple[Change, str] | None = None  # and what the file says without it

    def furnish(self) -> None:
        """Copy the project."""
        shutil.copytree(ROOT, self.folder, ignore=_UNWANTED, dirs_exist_ok=True)
        # By its content: by time and size, a change within the second that leaves the length would not be compiled.
        compileall.compile_dir(self.folder / "dbconfig", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)

    def open(self, tests: Sequence[str]) -> None:
        """Collect these tests, all if there are none, in a process that forks for each run of some of them."""
        self._session = ForkingSession(self.folder, self._environ(), tests)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    @contextmanager
    def _changed(self, change: Change) -> Iterator[None]:
        if self._session is not None:
            self._session.wait()
        path = self.folder / change.path
        original = path.read_bytes()
        path.write_bytes(change.apply(original))
        self._made = change, original.decode()
        try:
            yield
        finally:
            path.write_bytes(original)
            self._made = None

    def attempt(self, change: Change, tests: Sequence[str], known: Reliability) -> Result:
        """Try a change until one of its tests notices.

        A test notices if, on its own, it fails again with the change, and passes without it. One that does not is
        unreliable, and the others are asked.
        """
        while True:
            with self._changed(change):
                found = self.run(tests, known.unreliable)
                error = found.outcome.startswith("error")
                broken = error and not self._imports(change)
                again = found
                if found.test or (error and not broken):
                    again = self.run([found.test] if found.test else tests)
            if broken and self._imports(change):
                return Result("cannot be imported")
            if error and not broken and again == found and self._run_anew(tests, ()).outcome == "survived":
                return Result("ends the run")  # pytest itself stops, such as at a `repr` that returns no text
            if not found.test:
                return found
            if again.outcome in KILLS and self._passes(found.test, known):
                return found
            known.unreliable.append(found.test)

    def _passes(self, test: str, known: Reliability) -> bool:
        if test not in known.reliable and self.run([test]).outcome == "survived":
            known.reliable.add(test)
        return test in known.reliable

    def _imports(self, change: Change) -> bool:
        module = change.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        command = [sys.executable, "-c", f"import {module}"]
        return subprocess.run(command, cwd=self.folder, env=self._environ(), capture_output=True).returncode == 0

    def _environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, tests: Sequence[str], without: Iterable[str] = ()) -> Result:
        """Run tests until the first one fails."""
        if not tests:
            return Result("not executed")
        if self._session is not None:
            self._session.wait()
            code, events = self._session.run(self._made, tests, without, self._limits, TEST_LIMIT)
            if not isinstance(code, str):
                return result(code, events)
            assert self._made is not None  # without a change there is nothing to import
            self.imported.add(self._made[0])
        return self._run_anew(tests, without)

    def _run_anew(self, tests: Sequence[str], without: Iterable[str]) -> Result:
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        events, only = self.folder / ".events", self.folder / ".only"
        events.write_text("")
        only.write_text(json.dumps(list(tests)))  # in a file: a process takes 128 KB in a variable
        environ = {**self._environ(), "MUTANTS_ONLY": str(only), "MUTANTS_EVENTS": str(events)}
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "tests.mutation.plugin"]
        limit = max(self._limits.get(test, TEST_LIMIT) for test in tests)
        options += ["-o", f"faulthandler_timeout={limit}", "-o", "faulthandler_exit_on_timeout=true"]
        options += [option for test in list(without) for option in ("--deselect", test)]
        try:
            command = [sys.executable, "-m", "pytest", *options, *files]
            done = subprocess.run(command, cwd=self.folder, env=environ, timeout=LIMIT, capture_output=True)
            code: int | None = done.returncode
        except subprocess.TimeoutExpired:
            code = None
        return result(code, [json.loads(line) for line in events.read_text().splitlines()])


def result(code: int | None, events: Sequence[Sequence[str]]) -> Result:
    """Say what the end of a run means.

    Args:
        code: with which pytest ended; None if it did not.
        events: the tests that ["began", …] or ["failed", …].
    """
    failed = next((test for what, test in events if what == "failed"), "")
    if code == 1 and failed:
        return Result("killed", failed)
    if code in (None, 1) and events and not failed:  # faulthandler ends a test that hangs with the same code
        return Result("hangs", events[-1][1])
    return Result({0: "survived", 5: "not executed"}.get(code, f"error {code}") if code is not None else "error")
