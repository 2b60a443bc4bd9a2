"""What every gunicorn of the tests runs with: it says when a worker is ready to serve."""

control_socket_disable = True  # one file in the home folder, for all servers of a user
graceful_timeout = 2


def post_worker_init(worker):
    worker.log.info("worker is ready")
