"""Who the client is: from a request to the key whose counter it is charged to.

A key is text, ``type:value``, of printable ASCII without space, comma, braces or quotes in the
value. Whatever a client sends, no two types and no two values make the same key, and nothing it
sends raises.
"""

from __future__ import annotations

from ..hooks import Hook, load_hook
from ..networks import Address, Networks, parse_network, read_networks
from .address import (
    IPV4_PREFIXES,
    IPV6_PREFIXES,
    Client,
    ClientIP,
    Clients,
    environ_name,
    is_token,
)
from .keys import (
    KEY_TYPES,
    Environ,
    Identity,
    Key,
    KeyFunction,
    PathArgs,
    canonical,
    chosen_freely,
    client_address,
    key_function,
    preflight_key,
)
from .session import Session, user_reader

__all__ = [
    "IPV4_PREFIXES",
    "IPV6_PREFIXES",
    "KEY_TYPES",
    "Address",
    "Client",
    "ClientIP",
    "Clients",
    "Environ",
    "Hook",
    "Identity",
    "Key",
    "KeyFunction",
    "Networks",
    "PathArgs",
    "Session",
    "canonical",
    "chosen_freely",
    "client_address",
    "environ_name",
    "is_token",
    "key_function",
    "load_hook",
    "parse_network",
    "preflight_key",
    "read_networks",
    "user_reader",
]
