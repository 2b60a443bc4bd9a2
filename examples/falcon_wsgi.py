"""A Falcon API with limits.

Serve it with: gunicorn examples.falcon_wsgi:application
"""

import falcon

from wsgi_throttle import Throttle


class Ping:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.media = {"pong": True}


app = falcon.App()
app.add_route("/ping", Ping())

application = Throttle(
    app,
    {
        "storage": "${REDIS_URL:-shared://}",
        "rules": [{"name": "ping", "path": "/ping", "limits": "3 per minute"}],
    },
)
