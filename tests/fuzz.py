"""Fuzz the half that reads configuration: no exception but ConfigError, no secret told, no hang.

`python -m tests.fuzz --examples 70000` runs each of the three kinds so often; the test suite runs a few of each.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dbconfig import ConfigError, DatabaseSettings, load

CANARY = "c4n4ry"  # stands in every secret, and may stand in no message
SECONDS = 5.0  # that one document may take at the most, on a busy machine
MEGABYTES = 64.0  # that one document may need at the most

KEYS = (
    *DatabaseSettings.model_fields,
    "extends",
    "databases",
    "name",
    "pool_sise",
    "Url",
    "",
    "a.b",
    "__class__",
    "<<",
)
SCALARS = (
    *(
        "5",
        "-1",
        "0",
        "1e400",
        "0x10",
        "010",
        "1:30",
        "3s",
        "500ms",
        "yes",
        "no",
        "~",
        "null",
        "true",
        "False",
        '""',
        "''",
    ),
    *(
        "2026-11-25",
        ".nan",
        ".inf",
        "!!python/object:os.system x",
        "!!binary aGk=",
        "*a",
        "&a 5",
        "'",
        '"',
        "|",
        ">",
        "%",
        "@",
    ),
    *(
        "sqlite://",
        "sqlite:///x.db",
        "postgresql://u@h/d",
        "mysql://h:99999/d",
        "postgres://u:p@ss@h/d",
        "file:///etc/passwd",
    ),
    *(
        "{file: /nowhere}",
        "{env: X}",
        "{provider: p}",
        "{a: {b: [c]}}",
        "[1, [2, [3]]]",
        "[a, 'b:1']",
        "{x: }",
        "QueuePool",
    ),
    *(
        "${A}",
        "${A:-b}",
        "${A:?no}",
        "$${A}",
        "${",
        "${}",
        "${A:-${B:-${C}}}",
        "${A",
        "$A",
        "${1}",
        "${A:-'}'}",
        "verify-full",
    ),
    *(
        "\u0000",
        "\ufeff",
        "\u202e",
        "\U0001f600",
        "\ud7ff",
        "é",
        "\x7f",
        "\t",
        "- - -",
        "--- x",
        "...",
        "? x",
        "# c",
        "x" * 300,
    ),
)
VALID = (
    *("pool_size: 7", "echo: true", "pool_recycle: 5m", "connect_args: {application_name: x}", "protected: false"),
    *("variables: {work_mem: 5MB}", "isolation_level: SERIALIZABLE", "lock_timeout: 300ms", "pool_pre_ping: 2s", "# x"),
    *("databases: {o: {url: 'sqlite://'}}", "execution_options: {yield_per: 5}", "logging_name: x", "autoflush: no"),
)
PUNCTUATION = (
    *tuple(" \n\t:-?{}[],&*#!|>'\"%@`$/\\.=~"),
    "\n  ",
    "\n- ",
    ": ",
    "${",
    "}",
    "<<: *a\n",
    "\r\n",
    "\u2028",
)
NAMES = ("A", "B", "C", "X", "DB_PASSWORD", "ENVIRONMENT", "DBCONFIG_POOL_SIZE", "DBCONFIG_URL", "DBCONFIG_ECHO")
TARGETS = (
    *(f"DBCONFIG_{name.upper()}" for name in DatabaseSettings.model_fields),
    *(
        "DBCONFIG_DATABASES__OTHER__URL",
        "DBCONFIG_DATABASES__OTHER__POOL_SIZE",
        "DBCONFIG_CONNECT_ARGS__X",
        "DBCONFIG__",
    ),
    *("DBCONFIG_", "DBCONFIG_NONE", "DBCONFIG_DATABASES", "DBCONFIG_EXTENDS", "DBCONFIG_DATABASES____URL"),
)


@dataclass
class Tally:
    """What happened, over many examples."""

    runs: int = 0
    loaded: int = 0
    slugs: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: float = 0.0  # MB
    failures: list[str] = field(default_factory=list)


def scalar(choose: random.Random) -> str:
    kind = choose.random()
    if kind < 0.7:
        return choose.choice(SCALARS)
    if kind < 0.85:
        return "".join(choose.choice(SCALARS) for _ in range(choose.randint(1, 3)))
    return "".join(
        chr(choose.choice((choose.randint(32, 126), choose.randint(0, 0xD7FF)))) for _ in range(choose.randint(0, 12))
    )


def document(choose: random.Random, depth: int = 0) -> str:
    """Return something like YAML: right keys and values, wrong ones, and then some characters changed."""
    lines = ["url: postgresql://u@h/d"] if choose.random() < 0.7 and not depth else []
    for _ in range(choose.randint(0, 4)):
        if choose.random() < 0.4:
            lines.append(choose.choice(VALID))
            continue
        key, kind = choose.choice(KEYS), choose.random()
        if kind < 0.75:
            lines.append(f"{key}: {scalar(choose)}")
        elif kind < 0.9 and depth < 6:
            inner = document(choose, depth + 1)
            lines.append(f"{key}:\n" + "\n".join(f"  {line}" for line in inner.splitlines()))
        else:
            lines.append(f"{key}:\n" + "\n".join(f"- {scalar(choose)}" for _ in range(choose.randint(0, 4))))
    text = "\n".join(lines) + "\n"
    for _ in range(choose.choice((0, 0, 0, 0, 0, 1, 2, 8))):
        at = choose.randint(0, len(text))
        text = text[:at] + choose.choice(PUNCTUATION) + text[at + choose.choice((0, 0, 1, 3)) :]
    return text


def some_document(choose: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    files = {"development.yaml": f"{document(choose)}\npassword: {CANARY}-{choose.choice(SCALARS[:20])}\n"}
    if choose.random() < 0.3:
        files["default.yaml"] = document(choose)
    return files, {name: scalar(choose) for name in NAMES[:4] if choose.random() < 0.5}


def some_interpolation(choose: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    parts = (
        "${A}",
        "${B}",
        "${A:-",
        "${B:?",
        "}",
        "$",
        "$$",
        "{",
        ":-",
        ":?",
        "x",
        "/",
        "@",
        ":",
        "?",
        "&",
        "=",
        "%",
        "${A:-${B}}",
    )
    text = "".join(choose.choice(parts) for _ in range(choose.randint(1, choose.choice((6, 12, 60)))))
    where = choose.choice(
        (
            "url: postgresql://app:{}@h/d",
            "url: '{}'",
            'password: "{}"',
            "host: '{}'",
            "pool_size: {}",
            "variables: {{x: '{}'}}",
        )
    )
    values = {"A": f"{scalar(choose)}@{CANARY}", "B": scalar(choose) if choose.random() < 0.8 else "${A}" * 50}
    return {"development.yaml": where.format(text) + "\n"}, {
        name: values[name] for name in values if choose.random() < 0.9
    }


def some_environment(choose: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    environ = {choose.choice(TARGETS): scalar(choose) for _ in range(choose.randint(1, 4))}
    environ["DBCONFIG_PASSWORD"] = f"{CANARY}{choose.choice(SCALARS)}"
    lines = "".join(
        f"{choose.choice(NAMES)}{choose.choice(('=', ' = ', ':', ''))}{scalar(choose)}\n"
        for _ in range(choose.randint(0, 4))
    )
    return {
        "development.yaml": "url: postgresql://u@h/d\ndatabases: {other: {url: 'sqlite:///o.db'}}\n",
        "../.env": lines,
    }, environ


KINDS: dict[str, Callable[[random.Random], tuple[dict[str, str], dict[str, str]]]] = {
    "documents": some_document,
    "interpolations": some_interpolation,
    "environment values": some_environment,
}


def run(kind: str, examples: int, seed: int, *, memory: bool = False) -> Tally:
    """Load so many made-up configurations, and note what is not as it must be."""
    tally, make = Tally(), KINDS[kind]
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "config"
        folder.mkdir()
        for number in range(seed, seed + examples):
            files, environ = make(random.Random(f"{kind} {number}"))
            for name in ("default.yaml", "development.yaml", "../.env"):
                path = folder / name
                content = files.get(name)
                path.unlink(missing_ok=True)
                if content is not None:
                    path.write_text(content, encoding="utf-8", errors="surrogatepass", newline="")
            if memory:
                tracemalloc.start()
            start, before = time.perf_counter(), tally.loaded
            told = _attempt(folder, {"ENVIRONMENT": "development", **environ}, tally)
            took = time.perf_counter() - start
            if memory:
                tally.peak = max(tally.peak, tracemalloc.get_traced_memory()[1] / 1e6)
                tracemalloc.stop()
            tally.runs += 1
            tally.slowest = max(tally.slowest, took)
            # A variable may well be part of a host or a path, which a loaded profile shows; an error shows none.
            if CANARY in told and not (kind == "interpolations" and tally.loaded > before):
                tally.failures.append(f"{kind} {number}: a secret is told: {told[:300]}")
            elif told.startswith("!"):
                tally.failures.append(f"{kind} {number}: {told}")
            elif took > SECONDS:
                tally.failures.append(f"{kind} {number}: took {took:.1f} s")
    if tally.peak > MEGABYTES:
        tally.failures.append(f"{kind}: needed {tally.peak:.0f} MB")
    return tally


def _attempt(folder: Path, environ: dict[str, str], tally: Tally) -> str:
    try:
        profile = load(path=folder, environ=environ)
    except ConfigError as error:
        tally.slugs.update(problem.slug for problem in error.problems)
        return f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    except RecursionError as error:
        return f"! {error!r}"
    except Exception as error:
        return f"! {type(error).__name__}: {error}"
    tally.loaded += 1
    return f"{profile!r} {profile.model_dump()!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=70_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1_000_000)
    given = parser.parse_args()
    failures = 0
    for kind in KINDS:
        start = time.monotonic()
        tally = run(kind, given.examples, given.seed)
        memory = run(kind, min(given.examples, 500), given.seed, memory=True)
        found = tally.failures + memory.failures
        failures += len(found)
        print(
            f"{tally.runs} {kind}: {tally.loaded} loaded, {sum(tally.slugs.values())} problems of {len(tally.slugs)} "
            f"kinds, {len(found)} failures, slowest {tally.slowest * 1000:.0f} ms, most memory {memory.peak:.1f} MB, "
            f"{time.monotonic() - start:.0f} s"
        )
        for text in found[:20]:
            print("  ", text[:600])
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
