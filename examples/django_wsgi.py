"""The wsgi.py of a Django project, with limits.

Serve it with: gunicorn examples.django_wsgi:application
"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from wsgi_throttle import Throttle

# A real project has this in its settings module, and the view and its URL in modules of their own.
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for the demo only")


def ping(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"pong": True})


urlpatterns = [path("ping", ping)]

# For a few rules a mapping is enough. It has the same shape as a rule file.
application = Throttle(
    get_wsgi_application(),
    {
        "storage": "${REDIS_URL:-shared://}",
        "rules": [{"name": "ping", "path": "/ping", "limits": "3 per minute"}],
    },
)
