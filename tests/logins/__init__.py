"""Sites that people log in to, one a framework, each behind the throttle.yaml of the working
directory.

POST /login with user and password "demo" begins a session, POST /logout ends it, and /export
answers with the user, or 401 without one.
"""
