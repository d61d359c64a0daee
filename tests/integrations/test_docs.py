"""What docs/ says about the integrations exists."""

import importlib
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("async", "fastapi", "flask", "alembic", "testing", "workers", "observability")

# What an integration is imported with, where its tests are not skipped.
NEEDED = {
    **{name: name for name in ("fastapi", "flask", "alembic", "celery")},
    **{
        "fastapi_status": "fastapi",
        "flask_status": "flask",
        "otel": "opentelemetry",
        "prometheus": "prometheus_client",
    },
}


@pytest.mark.parametrize("page", PAGES)
def test_every_import_on_the_page_works_and_every_file_exists(page):
    text = (DOCS / f"{page}.md").read_text()
    for module, names in re.findall(r"^from (dbconfig[\w.]*) import (.+)$", text, re.MULTILINE):
        if importlib.util.find_spec(NEEDED.get(module.rpartition(".")[2], "dbconfig")):
            found = importlib.import_module(module)
            assert [name for name in names.split(", ") if not hasattr(found, name)] == []
    for place in re.findall(r"`((?:examples|benchmarks)/[\w./]+)`", text):
        assert (DOCS.parent / place).exists(), place


def test_every_fixture_and_option_is_on_the_page():
    from dbconfig.integrations import pytest_plugin

    text = (DOCS / "testing.md").read_text()
    fixtures = [name for name in dir(pytest_plugin) if name.startswith(("db_", "async_db_"))]
    options = re.findall(r'"(--db-\w+|db_\w+)"', Path(pytest_plugin.__file__).read_text())
    assert [name for name in {*fixtures, *options} if f"{name}" not in text] == []


def test_the_entry_points_are_there():
    for group, value in (
        ("pytest11", "dbconfig.integrations.pytest_plugin"),
        ("opentelemetry_instrumentor", "dbconfig.integrations.otel:Instrumentor"),
        ("flask.commands", "dbconfig.integrations.flask:commands"),
    ):
        assert value in [point.value for point in entry_points(group=group)]
