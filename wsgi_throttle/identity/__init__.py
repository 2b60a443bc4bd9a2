"""Who sent a request, as a key: the text ``type:value`` that tells clients apart.

The value is printable ASCII without space, comma, braces and quotes. Two different types or values
never make the same key, and nothing that a client sends makes this package raise.
"""

from __future__ import annotations

from ..hooks import Hook, load_hook
from ..networks import Address, Networks, parse_network, read_networks
from .address import IPV4_PREFIXES, IPV6_PREFIXES, MAX_HOPS, Client, ClientIP, Clients
from .key_types import KEY_TYPES, Environ, Key, KeyType, PathArgs
from .keys import (
    KeyFunction,
    PreflightKey,
    client_address,
    is_client_controlled,
    key_function,
    needs_body,
    preflight_key,
)
from .numbers import canonical_path_value, numbered_readings, with_canonical_numbers
from .session import Session, user_reader
from .settings import Identity
from .text import environ_name, is_header_name
from .written import written_keys

__all__ = [
    "IPV4_PREFIXES",
    "IPV6_PREFIXES",
    "KEY_TYPES",
    "MAX_HOPS",
    "Address",
    "Client",
    "ClientIP",
    "Clients",
    "Environ",
    "Hook",
    "Identity",
    "Key",
    "KeyFunction",
    "KeyType",
    "Networks",
    "PathArgs",
    "PreflightKey",
    "Session",
    "canonical_path_value",
    "client_address",
    "environ_name",
    "is_client_controlled",
    "is_header_name",
    "key_function",
    "load_hook",
    "needs_body",
    "numbered_readings",
    "parse_network",
    "preflight_key",
    "read_networks",
    "user_reader",
    "with_canonical_numbers",
    "written_keys",
]
