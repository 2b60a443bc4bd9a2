"""The commands that are sent to Redis, and its replies to take.lua, in its protocol RESP2.

See https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha1
from struct import pack

from ...decision import Charge, Decision, Measured, Term, Terms
from ...errors import StorageError
from ...strategies import STRATEGIES


class Script:
    """The two ways to run a script: by its digest, and by its text if the server does not have it.

    :ivar evalsha: the first words of the command that runs it by its digest.
    :ivar evaluate: the first words of the command that runs it by its text.
    :ivar load: the whole command that makes the server keep it.
    """

    __slots__ = ("evalsha", "evaluate", "load")

    def __init__(self, text: bytes) -> None:
        digest = sha1(text, usedforsecurity=False).hexdigest().encode()
        self.evalsha = bulk(b"EVALSHA") + bulk(digest)
        self.evaluate = bulk(b"EVAL") + bulk(text)
        self.load = b"*3\r\n" + bulk(b"SCRIPT") + bulk(b"LOAD") + bulk(text)


class TakeCommand:
    """Makes the commands that charge clients by these terms. Immutable."""

    __slots__ = ("_arguments", "_array_header", "_key_count", "_keys", "_terms")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._array_header = b"*%d\r\n" % (3 + 2 * len(terms))
        self._key_count = bulk(b"%d" % len(terms))
        self._keys = [(term.bucket, term.limit.tag) for term in terms]
        self._arguments = _arguments(terms, [term.cost for term in terms])

    def encode(
        self, script: bytes, buckets: Sequence[str], costs: Sequence[int] | None = None
    ) -> bytes:
        """The command for one request.

        :param script: ``evalsha`` or ``evaluate`` of a :class:`Script`.
        :param buckets: the client's, as the terms number them.
        :param costs: for each term, in place of its own cost.
        """
        words = [self._array_header, script, self._key_count]
        for bucket, tag in self._keys:
            key = f"{buckets[bucket]}:{tag}".encode()
            words.append(b"$%d\r\n%b\r\n" % (len(key), key))
        words.append(self._arguments if costs is None else _arguments(self._terms, costs))
        return b"".join(words)


def bulk(text: bytes) -> bytes:
    """A bulk string, RESP's form for each word of a command."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _arguments(terms: Iterable[Term], costs: Sequence[int]) -> bytes:
    """The ARGV of take.lua: one packed charge for each term."""
    words = []
    for term, cost in zip(terms, costs, strict=True):
        limit = term.limit
        lifetime_ms = STRATEGIES[limit.strategy].lifetime_ms(limit)
        numbers = (term.enforce, cost, limit.quota, limit.window_ms, limit.burst, lifetime_ms)
        words.append(bulk(pack(">B5d", *numbers) + limit.strategy.encode() + b"\0"))
    return b"".join(words)


def delete_command(charges: Sequence[Charge]) -> bytes:
    """The command that deletes the states of these charges."""
    words = [b"*%d\r\n" % (1 + len(charges)), bulk(b"DEL")]
    words += [bulk(f"{charge.bucket}:{charge.limit.tag}".encode()) for charge in charges]
    return b"".join(words)


def parse_decision(
    line: bytes,
    terms: Terms,
    buckets: tuple[str, ...],
    costs: Sequence[int] | None = None,
    on_unreadable: Callable[[int], object] = lambda number: None,
) -> Decision:
    """The decision in a reply of take.lua.

    :param line: the reply without its line end.
    :param on_unreadable: called with the number of states that were unreadable, if there were any.
    :raises StorageError: it cannot be the reply to a command with these terms.
    """
    try:
        granted, *numbers = map(int, line[1:].split())
    except ValueError:
        granted, numbers = -1, []
    if len(numbers) == 3 * len(terms) + 1:
        on_unreadable(numbers.pop())
    if line[:1] != b"+" or granted not in (0, 1) or len(numbers) != 3 * len(terms):
        raise StorageError(f"not an answer of take.lua: {line[:80]!r}")
    three = iter(numbers)
    measured: list[Measured] = list(zip(three, three, three, strict=True))
    return Decision(granted == 1, terms, buckets, measured, costs)
