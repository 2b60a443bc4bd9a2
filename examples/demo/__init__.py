"""An ordinary Flask application. Nothing in it knows of the limits in front of it."""

from __future__ import annotations

import os

from flask import Flask, abort, jsonify, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

app = Flask(__name__)
# The default is no secret, so it must not be used for more than the demo. The rule file,
# config.example.yaml, has the same default.
app.secret_key = os.environ.get("SECRET_KEY") or "for the demo only"


@app.get("/")
def home() -> str:
    return render_template("home.html", user=session.get("user_id"))


@app.get("/login")
def login_form() -> str:
    return render_template("login.html")


@app.post("/login")
def login() -> Response:
    user = request.form.get("user_id", "").strip()
    if not user or request.form.get("password") != "demo":
        abort(401, "The password of every user is: demo")
    session["user_id"] = user
    return redirect(url_for("home"))


@app.route("/logout", methods=["GET", "POST"])
def logout() -> Response:
    session.clear()
    return redirect(url_for("home"))


@app.post("/register")
def register() -> tuple[Response, int]:
    return jsonify(registered=request.form.get("email", "")), 201


@app.post("/forgot-password")
def forgot_password() -> tuple[Response, int]:
    # The answer does not tell whether the address is known.
    return jsonify(message="If we know that address, a link is on its way."), 202


@app.get("/api/data")
def data() -> Response:
    return jsonify(data=[1, 2, 3])


@app.get("/api/search")
def search() -> Response:
    return jsonify(query=request.args.get("q", ""), results=[])


@app.get("/api/export")
def export() -> Response:
    if "user_id" not in session:
        abort(401, "Log in first")
    return Response(
        (f"{row},{row * row}\n" for row in range(1, 11)),
        mimetype="text/csv",
        headers={"Content-Disposition": "attachment; filename=export.csv"},
    )


@app.post("/admin/delete-user/<int:id>")
def delete_user(id: int) -> Response:  # noqa: A002 - the name that the URL uses
    return jsonify(deleted=id)


@app.get("/health")
def health() -> Response:
    return jsonify(status="ok")
