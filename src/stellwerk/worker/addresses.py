"""Which hosts and addresses an outbound call may reach: public ones, and those that the operator allows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from stellwerk.errors import UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Ranges that carry another address inside: what is inside must be public as well.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
# Global by the registry's letter, yet never a host on the public internet.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "64:ff9b:1::/48",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)
_LOOKS_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)


def is_public(address: Address) -> bool:
    """Whether this is an ordinary address of the public internet; anything doubtful is not."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address in _COMPATIBLE:
            return False
    if any(address.version == network.version and address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


def literal(host: str) -> Address | None:
    """The address that a host is written as, if it is one in its usual form."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_ambiguous(host: str) -> bool:
    """Whether a host is no usual address but would be read as one by some resolver: 2130706433, 0x7f.1, 0177.0.0.1."""
    return literal(host) is None and _LOOKS_NUMERIC.fullmatch(host.rstrip(".").rsplit(".", 1)[-1]) is not None


@dataclass(frozen=True)
class AllowedHosts:
    """The operator's exceptions (`STELLWERK_ALLOWED_HOSTS`): names, name:port, addresses and networks."""

    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowedHosts:
        """Read the entries; raises `UsageError` for one that is neither a host nor a network."""
        names: set[tuple[str, int | None]] = set()
        networks: list[Network] = []
        for entry in entries:
            if "/" in entry:
                try:
                    networks.append(ipaddress.ip_network(entry, strict=False))
                except ValueError:
                    raise UsageError(
                        f"STELLWERK_ALLOWED_HOSTS: {entry!r} is no network", hint="Write it like 10.1.0.0/16."
                    ) from None
                continue
            host, port = _split(entry)
            names.add((normal(host), port))
        return cls(frozenset(names), tuple(networks))

    def allow_host(self, host: str, port: int) -> bool:
        """Whether the operator named this host, with this port or with none; whatever it resolves to is then fine."""
        name = normal(host)
        return (name, port) in self.names or (name, None) in self.names

    def allow_address(self, address: Address, port: int) -> bool:
        """Whether an address may be connected to: it is public, or the operator named it or its network."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return self.allow_address(address.ipv4_mapped, port)
        if is_public(address) or self.allow_host(str(address), port):
            return True
        return any(address.version == network.version and address in network for network in self.networks)


def normal(host: str) -> str:
    """A host in the one spelling that comparisons use."""
    return host.strip("[]").rstrip(".").lower()


def _split(entry: str) -> tuple[str, int | None]:
    if literal(entry.strip("[]")) is not None:
        return entry, None
    host, colon, port = entry.rpartition(":")
    if not colon:
        return entry, None
    if not port.isdigit() or not host:
        raise UsageError(f"STELLWERK_ALLOWED_HOSTS: {entry!r} is no host", hint="Write host, host:port or a network.")
    return host, int(port)
