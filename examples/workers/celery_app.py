"""Celery with its prefork pool: the children make connections of their own at their first job.

celery -A celery_app worker --concurrency 4
"""

import os
from pathlib import Path

import jobs
from celery import Celery
from celery.signals import worker_init

folder = Path(os.environ.get("QUEUE", "data/queue"))
for part in ("in", "processed", "control"):
    (folder / part).mkdir(parents=True, exist_ok=True)

# A broker of files, so that the example needs no server.
app = Celery("jobs", broker="filesystem://", backend=f"file://{folder.absolute()}/processed")
app.conf.broker_transport_options = {
    "data_folder_in": str(folder / "in"),
    "data_folder_out": str(folder / "in"),
    "control_folder": str(folder / "control"),
}
app.conf.worker_prefetch_multiplier = 1


@worker_init.connect
def prepare(**_: object) -> None:
    jobs.prepare()


@app.task
def run(number: int) -> int:
    return jobs.run(number)
