"""Everything that a client receives from us: headers on each response, and whole responses in the
application's place."""
