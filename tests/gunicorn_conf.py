"""The settings of every gunicorn of the tests. A worker logs when it is ready to serve."""

from __future__ import annotations

from gunicorn.workers.base import Worker

control_socket_disable = True  # all servers of a user would share one file in the home folder
graceful_timeout = 2


def post_worker_init(worker: Worker) -> None:
    worker.log.info("worker is ready")
