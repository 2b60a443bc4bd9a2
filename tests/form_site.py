"""A Flask application that forms are posted to, behind the throttle.yaml of the working directory:
/login/... answers with the e-mail address that it was sent, /echo/... with the whole body."""

from __future__ import annotations

from flask import Flask, request

from wsgi_throttle import Throttle

app = Flask(__name__)


@app.post("/login/<case>")
def login(case: str) -> str:
    return request.form["email"]


@app.post("/echo/<case>")
def echo(case: str) -> bytes:
    return request.get_data()


application = Throttle(app, "throttle.yaml")
