"""Flask with its own session and no extension."""

from __future__ import annotations

import os

from flask import Flask, abort, request, session

from wsgi_throttle import Throttle

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]


@app.post("/login")
def login() -> str:
    if request.form["password"] != "demo":
        abort(401)
    session["user_id"] = request.form["user"]
    return "welcome"


@app.post("/logout")
def logout() -> str:
    session.clear()
    return "good-bye"


@app.get("/export")
def export() -> str:
    user: str = session.get("user_id") or abort(401)
    return user


application = Throttle(app, "throttle.yaml")
