"""An application that test_fork.py lets uWSGI load in its master, before the workers are forked."""

from __future__ import annotations

import os

from werkzeug.test import Client
from werkzeug.wrappers import Response

from wsgi_throttle import Throttle

application = Throttle(
    Response("ok"),
    {
        "storage": os.environ["SITE_STORAGE"],
        "storage_timeout": "5 s",
        "on_storage_error": "deny",
        "default_limits": "50 per hour",
    },
)
if os.environ["SITE_WARM_UP"] == "request":
    Client(application).get("/", environ_base={"REMOTE_ADDR": "192.0.2.9"})
elif os.environ["SITE_WARM_UP"] == "reset":
    application.reset("ip:192.0.2.9")
