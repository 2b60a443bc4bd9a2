"""Flask with Flask-Login."""

from __future__ import annotations

import os

from flask import Flask, abort, request
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)

from wsgi_throttle import Throttle

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
manager = LoginManager(app)


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


manager.user_loader(User)


@app.post("/login")
def login() -> str:
    if request.form["password"] != "demo":
        abort(401)
    login_user(User(request.form["user"]))
    return "welcome"


@app.post("/logout")
def logout() -> str:
    logout_user()
    return "good-bye"


def export() -> str:
    name: str = current_user.id
    return name


app.add_url_rule("/export", view_func=login_required(export))


application = Throttle(app, "throttle.yaml")
