"""What every gunicorn of the tests runs with: it says when a worker is ready to serve."""

from __future__ import annotations

from gunicorn.workers.base import Worker

control_socket_disable = True  # one file in the home folder, for all servers of a user
graceful_timeout = 2


def post_worker_init(worker: Worker) -> None:
    worker.log.info("worker is ready")
