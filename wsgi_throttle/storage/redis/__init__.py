"""``redis://``, ``valkey://``, ``unix://`` and ``redis+sentinel://``: counters of many hosts, in a
Redis or Valkey server."""
