"""The demo behind the rules of config.example.yaml; `make demo` serves it.

Serve it with: gunicorn --workers 4 examples.wsgi:application
"""

from wsgi_throttle import Throttle

from .demo import app

application = Throttle(app, "config.example.yaml")
