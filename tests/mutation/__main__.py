"""Change the code in one place at a time, run the tests of that place, and print what they do not notice.

The suite runs once with probes, to learn which tests run which line; `--record` does so anew. Each change is tried in
a copy of the project, in a child of a process that has collected the tests, until one of its tests fails, and does so
again alone, but not without the change. Survivors are printed as `file:line old → new`. What can make no difference
is listed in equivalent.py, with the reason.
"""

import argparse
import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.changes import Change, changes
from tests.mutation.equivalent import reason
from tests.mutation.journal import Journal
from tests.mutation.record import BUDGET, Record
from tests.mutation.workshop import KILLS, ROOT, Reliability, Workshop
from tests.support.folders import short_folder

TARGETS = (
    *("dbconfig/engine/pool", "dbconfig/engine/dialects", "dbconfig/replicas", "dbconfig/errors/redaction.py"),
    *("dbconfig/engine/password_rotation.py", "dbconfig/engine/draining.py", "dbconfig/engine/read_only.py"),
    *("dbconfig/sessions/retry.py", "dbconfig/sessions/session.py", "dbconfig/sessions/sessionmaker.py"),
    *("dbconfig/registry/reloading.py", "dbconfig/registry/profiles.py", "dbconfig/settings/secret_sources.py"),
    *("dbconfig/settings/url_parsing.py", "dbconfig/config/layering.py", "dbconfig/config/interpolation.py"),
    *("dbconfig/config/active_profile.py", "dbconfig/config/extends.py", "dbconfig/config/profile_files.py"),
    "dbconfig/config/protected_databases.py",
)
_MANNER = ("verbose", "workers")  # arguments that do not decide what comes of a run


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
    # Each drawn independently: an edit elsewhere does not change the sample.
    drawn = [(hashlib.sha256(f"{options.seed} {each.path} {each.name}".encode()).digest(), each) for each in found]
    sampled = [each for _, each in sorted(drawn, key=lambda pair: pair[0])][: options.sample]
    part, parts = map(int, options.slice.split("/"))
    sampled = sampled[part - 1 :: parts]
    return [*lines, *sampled]  # in the order of the sample: what an interrupted run has tried is a sample, too


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("targets", nargs="*", help="files or folders; FILE:LINE for every change of a line")
    parser.add_argument("--sample", type=int, default=300, help="how many changes to try (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: 1)")
    parser.add_argument("--slice", default="1/1", metavar="K/N", help="only the K-th of N parts of the sample")
    parser.add_argument("--verbose", action="store_true", help="print each change, and which test has noticed it")
    parser.add_argument("--workers", type=int, default=2, help="how many at the same time (default: 2)")
    budget = f"seconds for the tests of one change, as long as they took when recorded (default: {BUDGET:g})"
    parser.add_argument("--budget", type=float, default=BUDGET, help=budget)
    parser.add_argument("--fresh", action="store_true", help="import everything anew for each change, for comparison")
    parser.add_argument("--continue", action="store_true", help="try what the last run, which was interrupted, has not")
    parser.add_argument("--again", action="store_true", help="try again what nothing noticed in the last run")
    parser.add_argument("--record", action="store_true", help="learn anew which tests run which line")
    parser.add_argument("--tests", nargs="+", default=[], help="tests to run instead of those, or to record alone")
    return parser.parse_args()


@contextmanager
def _folder() -> Iterator[Path]:
    folder = short_folder(in_memory=False)  # which the next run removes if this one is killed
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    options = arguments()
    record, began, counts, known = Record(ROOT, options.budget), time.monotonic(), Counter[str](), Reliability()
    if options.record or not (record.read() or options.tests):
        with _folder() as folder:
            Workshop(folder, {}).furnish()
            record.take(folder, options.workers, options.tests)
        options.tests = []
    if not options.targets and not options.sample:
        return  # only the record was asked for
    kind = {
        name: value for name, value in vars(options).items() if name not in ("again", "continue", "record", *_MANNER)
    }
    journal = Journal(
        ROOT / ".mutants/tried.jsonl", ROOT, kind, continues=vars(options)["continue"], again=options.again
    )
    with ExitStack() as stack:
        workshops: SimpleQueue[Workshop] = SimpleQueue()
        made: list[Workshop] = []
        for _ in range(options.workers):
            folder = stack.enter_context(_folder())
            made.append(stack.enter_context(closing(Workshop(folder, record.limits()))))
            made[-1].furnish()
            if not options.fresh:
                made[-1].open(options.tests or record.files())
            workshops.put(made[-1])
        if options.tests and (found := made[0].run(options.tests)).outcome != "survived":
            raise SystemExit(f"these tests fail without any change: {found.test or found.outcome}")
        selected = chosen(options)
        stale = [] if options.tests else record.stale(change.path for change in selected)
        if stale:
            print(f"changed since they were recorded, new lines have the tests of the old ones: {', '.join(stale)}")

        def attempt(change: Change) -> None:
            if reason(change):
                counts["equivalent"] += 1
                return
            result = journal.result(change)
            if result is None:
                workshop = workshops.get()
                try:
                    result = workshop.attempt(change, options.tests or record.tests(change), known)
                finally:
                    workshops.put(workshop)
                journal.add(change, result)
            counts[result.outcome] += 1
            if options.verbose or result.outcome not in KILLS:
                print(f"{result.outcome}: {change}" + (f", noticed by {result.test}" * bool(result.test)), flush=True)

        with ThreadPoolExecutor(options.workers) as threads:
            list(threads.map(attempt, selected))
    for test in sorted(known.unreliable):
        print(f"unreliable: {test}")
    tried = counts.total() - counts["equivalent"]
    share = 100 * sum(counts[kill] for kill in KILLS) / max(1, tried)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    print(f"{tried} changes, {share:.1f} % killed: {summary} (seed {options.seed}, {time.monotonic() - began:.0f} s)")
    if not options.fresh:
        print(f"tried in a process of their own: {sum(len(workshop.imported) for workshop in made)}")


if __name__ == "__main__":
    main()
