"""Celery: the statements of a task are tagged with its name."""

from __future__ import annotations

from celery import current_task

from dbconfig.engine import query_tags


def install() -> None:
    """Tag the statements of each task with its name, if the profile has `query_tags: [task]`."""
    query_tags.ask(_task)


def _task() -> dict[str, str]:
    return {"task": str(current_task.name)} if current_task else {}
