"""Django with its own users. The environment variable SESSION_ENGINE names the kind of its
sessions.

``python -m logins.django_site NAME...`` makes the database in the working directory, with these
users.
"""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings
from django.contrib.auth import authenticate, login, logout
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "users.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[f"django.contrib.{app}" for app in ("auth", "contenttypes", "sessions")],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ["SECRET_KEY"],
    SESSION_ENGINE=f"django.contrib.sessions.backends.{os.environ['SESSION_ENGINE']}",
    USE_TZ=True,
)


def log_in(request: HttpRequest) -> HttpResponse:
    user = authenticate(username=request.POST["user"], password=request.POST["password"])
    if user is None:
        return HttpResponse(status=401)
    login(request, user)
    return HttpResponse("welcome")


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("good-bye")


def export(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return HttpResponse(request.user.get_username())
    return HttpResponse(status=401)


urlpatterns = [path("login", log_in), path("logout", log_out), path("export", export)]

if __name__ == "__main__":
    django.setup()
    from django.contrib.auth.models import User

    call_command("migrate", verbosity=0)
    for name in sys.argv[1:]:
        User.objects.create_user(name, password="demo")
else:
    from wsgi_throttle import Throttle

    application = Throttle(get_wsgi_application(), "throttle.yaml")
