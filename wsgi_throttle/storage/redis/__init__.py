"""``redis://`` and its kin: counters of many hosts, in a Redis or Valkey server."""
