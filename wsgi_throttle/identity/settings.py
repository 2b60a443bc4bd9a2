"""All settings that say who the client is."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property

from ..clock import MONOTONIC, Clock
from .address import ClientIP, Clients
from .session import Session, UserReader, user_reader


@dataclass(frozen=True)
class Identity:
    """All settings that say who the client is, and the caches of clients and users.

    One object serves all rules of a configuration, so that they share the caches. Any thread may
    use it.

    :raises ValueError: a value that does not fit; the message has the remedy.
    """

    client_ip: ClientIP = field(default_factory=ClientIP)
    session: Session | None = None
    form_max_bytes: int = 65536
    """The longest body that a ``form:`` or ``json:`` key reads, in bytes."""
    is_json_counted: bool = False
    """For ``form:`` keys: the rule also has a ``json:`` key, which counts by JSON bodies."""
    clock: Clock = field(default=MONOTONIC, repr=False, compare=False)
    """For messages that are logged once a minute. It may not step back."""

    def __post_init__(self) -> None:
        if self.form_max_bytes < 1:
            raise ValueError(f"form_max_bytes is {self.form_max_bytes}: it must be at least 1")

    def beside_json(self) -> Identity:
        """The same for the keys of a rule that has a ``json:`` key. What is cached is shared."""
        found = copy(self)
        found.__dict__["is_json_counted"] = True
        return found

    @cached_property
    def clients(self) -> Clients:
        """Finds the address of each request's client."""
        return Clients(self.client_ip)

    @cached_property
    def read_user(self) -> UserReader:
        """Finds the user of each request.

        :raises ValueError: no session is configured, or its hook cannot be loaded.
        """
        if self.session is None:
            raise ValueError(
                "session-user needs to know the session: write session: {kind: flask, "
                "secret_key: ${SECRET_KEY}} at the top level"
            )
        return user_reader(self.session, clock=self.clock)
