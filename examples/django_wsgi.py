"""A Django project's wsgi.py with limits: gunicorn examples.django_wsgi:application"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from wsgi_throttle import Throttle

# What a project has in its settings and urls modules.
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for the demo only")


def ping(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"pong": True})


urlpatterns = [path("ping", ping)]

# A mapping says the same as a file, where there is little to say.
application = Throttle(
    get_wsgi_application(),
    {
        "storage": "${REDIS_URL:-shared://}",
        "rules": [{"name": "ping", "path": "/ping", "limits": "3 per minute"}],
    },
)
