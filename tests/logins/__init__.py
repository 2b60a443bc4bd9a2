"""Sites that people log in to, one for each framework, behind the throttle.yaml of the working
directory.

POST /login with a user and the password "demo" begins a session, and POST /logout ends it. /export
answers with the name of the user, or with 401.
"""
