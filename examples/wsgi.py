"""What `make demo` serves: gunicorn --workers 4 examples.wsgi:application"""

from wsgi_throttle import Throttle

from .demo import app

application = Throttle(app, "config.example.yaml")
