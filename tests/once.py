"""Tests whose outcome depends neither on the interpreter nor on versions of libraries: `.ci/run` runs them once.

`make test` runs all of them, as do `make test-lowest` and `make test-python`. `.ci/run`, which also repeats the tests
that need no server on the lowest versions and on other interpreters, leaves out there what is listed here by kind.
"""

from pathlib import Path

_HERE = Path(__file__).parent

# Each kind with its reason, and its files; a folder stands for all in it.
KINDS = {
    "what is written is read: no code of the package that the text is about decides": (
        "test_voice.py",
        "test_layers.py",
        "test_distribution.py",
        "integrations/test_contrib.py",
        "integrations/test_docs.py",
        "engine/pool/test_documentation.py",
        "faults/test_index.py",
    ),
    "documents and examples that are run: what they call has tests of its own, which are repeated": (
        "test_documents.py",
        "test_examples.py",
        "test_readme.py",
        "test_recipes.py",
        "test_tutorial.py",
        "databases/test_documented_recipes.py",
        "integrations/test_fastapi_app.py",
        "integrations/test_gunicorn_metrics.py",
        "integrations/test_observability_example.py",
        "integrations/test_workers.py",
    ),
    "other programs look at our files: a type checker, a language server, a browser": (
        "test_types.py",
        "cli/test_editor.py",
        "integrations/test_status_in_browser.py",
    ),
    "the tools of these tests": (
        "test_mutation.py",
        "test_support.py",
        "test_support_files.py",
        "test_support_interpreter.py",
        "test_support_prototype.py",
    ),
    "fuzzers and simulators: arithmetic on values, with thousands of cases where one of each is tested elsewhere": (
        "config/test_fuzz.py",
        "engine/pool/test_line_properties.py",
        "engine/pool/test_simulation.py",
        "engine/pool/test_storm.py",
    ),
    "an exception at every place of the pool's own code: a third of all the time, for what no version changes": (
        "engine/pool/test_struck_tasks.py",
    ),
}
FILES = frozenset(_HERE / name for names in KINDS.values() for name in names)


def is_run_once(path: Path) -> bool:
    """Whether the tests of a file are."""
    return path in FILES
