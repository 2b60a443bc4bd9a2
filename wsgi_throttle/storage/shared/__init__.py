"""``shared://``: counters of all processes of one host, in an LMDB file."""
