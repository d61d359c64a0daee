"""Change the code in one place at a time, run the tests of that place, and print what they do not notice.

The suite runs once with coverage, to learn which tests run which line; `--record` does so anew. Each change is tried in
a copy of the project, until the first of its tests fails. Survivors are printed as `file:line old → new`.
"""

import argparse
import compileall
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue

from tests.mutation.changes import Change, changes
from tests.mutation.record import Record

ROOT = Path(__file__).parents[2]
TARGETS = (
    *("dbconfig/engine/pool", "dbconfig/engine/dialects", "dbconfig/engine/password_rotation.py"),
    *("dbconfig/sessions/retry.py", "dbconfig/replicas", "dbconfig/errors/redaction.py"),
)
LIMIT = 600.0  # seconds after which a change that makes the tests hang has been noticed, on a busy machine too


class Workshop:
    """A copy of the project in which changes are tried, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        unwanted = shutil.ignore_patterns(
            ".git", ".venv*", ".mutants", ".*_cache", "__pycache__", "data", "dist", "build"
        )
        shutil.copytree(ROOT, folder, ignore=unwanted, dirs_exist_ok=True)
        # By its content: by time and size, a change within the second that leaves the length would not be compiled.
        mode = PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder / "dbconfig", quiet=1, invalidation_mode=mode)

    def outcome(self, change: Change, tests: Sequence[str]) -> str:
        path = self.folder / change.path
        original = path.read_bytes()
        path.write_bytes(change.apply(original))
        try:
            return self.run(tests)
        finally:
            path.write_bytes(original)

    def run(self, tests: Sequence[str]) -> str:
        if not tests:
            return "not executed"
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        environ = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        environ["MUTANTS_ONLY"] = json.dumps(list(tests))
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "tests.mutation.plugin"]
        with subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *files],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as run:
            try:
                code = run.wait(LIMIT)
            except subprocess.TimeoutExpired:
                return "hangs"
            finally:
                if run.poll() is None:
                    os.killpg(run.pid, signal.SIGKILL)  # its servers go with it: their watchdogs see to that
        return {0: "survived", 5: "not executed"}.get(code, "killed")


def chosen(options: argparse.Namespace) -> list[Change]:
    """Return the changes to try: a sample of those in the targets, or all of a line that is named."""
    found: list[Change] = []
    lines: list[Change] = []
    for target in options.targets or TARGETS:
        name, _, line = target.partition(":")
        if not (ROOT / name).exists():
            raise SystemExit(f"there is no {name}")
        for path in sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / name]:
            every = list(changes(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
            if line:
                lines += [change for change in every if change.start[0] == int(line)]
            else:
                found += every
    sampled = random.Random(options.seed).sample(found, min(options.sample, len(found)))
    return sorted([*lines, *sampled], key=lambda change: (change.path, change.start))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("targets", nargs="*", help="files or folders; FILE:LINE for every change of a line")
    parser.add_argument("--sample", type=int, default=300, help="how many changes to try (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: 1)")
    parser.add_argument("--workers", type=int, default=3, help="how many at the same time (default: 3)")
    parser.add_argument("--record", action="store_true", help="learn anew which tests run which line")
    parser.add_argument("--tests", nargs="+", default=[], help="tests to run instead of those, or to record alone")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    record, began, counts = Record(ROOT), time.monotonic(), Counter[str]()
    with ExitStack() as stack:
        workshops: SimpleQueue[Workshop] = SimpleQueue()
        for _ in range(options.workers):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True))
            workshops.put(Workshop(Path(folder)))
        workshop = workshops.get()
        if options.record or not (options.tests or record.read()):
            record.take(workshop.folder, options.workers, options.tests)
            options.tests = []
            record.read()
        elif options.tests and workshop.run(options.tests) != "survived":
            raise SystemExit("these tests fail without any change")
        workshops.put(workshop)
        selected = chosen(options)
        stale = [] if options.tests else record.stale(change.path for change in selected)
        if stale:
            print(f"changed since they were recorded, use --record: {', '.join(stale)}")

        def attempt(change: Change) -> None:
            workshop = workshops.get()
            try:
                outcome = workshop.outcome(change, options.tests or record.tests(change))
            finally:
                workshops.put(workshop)
            counts[outcome] += 1
            if outcome not in ("killed", "hangs"):
                print(f"{outcome}: {change}", flush=True)

        with ThreadPoolExecutor(options.workers) as threads:
            list(threads.map(attempt, selected))
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("killed", "hangs", "survived", "not executed"))
    share = 100 * (counts["killed"] + counts["hangs"]) / max(1, counts.total())
    took = time.monotonic() - began
    print(f"{counts.total()} changes, {share:.0f} % killed: {summary} (seed {options.seed}, {took:.0f} s)")


if __name__ == "__main__":
    main()
