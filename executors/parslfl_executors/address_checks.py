"""Whether workers on other machines can call this one back: by the ways that the kernel would take to them.

A way is looked up, never tried: connecting a UDP socket sends nothing.

Does not know: what kind of site the machines belong to, or firewalls.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import psutil

from parslfl_executors.checks import Call, Check, failed, ok, unknown

#: Other machines whose ways are looked up, at most: names of many could take long to resolve.
_MOST = 4
_PROBE = "--probe tells"


@dataclass(frozen=True)
class Way:
    """From this machine to `peer`, which is at `there` ("": its name is not known here).

    `begins`: the address of this machine that packets to it carry; "" if there is no way.
    """

    peer: str
    there: str
    begins: str

    @property
    def said(self) -> str:
        return self.peer if self.peer == self.there else f"{self.peer} ({self.there})"


def ways(peers: Sequence[str]) -> list[Way]:
    """The ways to some of `peers`, spread over all of them."""
    return [_way(peer) for peer in peers[:: max(1, len(peers) // _MOST)][:_MOST]]


def _way(peer: str) -> Way:
    try:
        there = socket.gethostbyname(peer)
    except OSError:
        return Way(peer, "", "")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((there, 9))
            return Way(peer, there, probe.getsockname()[0])
    except OSError:
        return Way(peer, there, "")


def loopback(address: str) -> bool:
    """Whether only this machine itself can reach `address`."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def is_near(own: Collection[str], found: Sequence[Way]) -> bool:
    """Whether the other machines are this one."""
    known = [way.there for way in found if way.there]
    return bool(known) and all(loopback(there) or there in own for there in known)


def past_gateway(found: Sequence[Way]) -> bool:
    """Whether some way leads over a gateway, which may translate addresses."""
    return any(way.there and way.begins and not _same_network(way) for way in found)


def _same_network(way: Way) -> bool:
    entries = (entry for entries in psutil.net_if_addrs().values() for entry in entries)
    masks = [entry.netmask for entry in entries if entry.address == way.begins and entry.netmask]
    networks = (ipaddress.ip_network(f"{way.begins}/{mask}", strict=False) for mask in masks)
    return any(ipaddress.ip_address(way.there) in network for network in networks)


def call_back(address: str | None, own: Collection[str], found: Sequence[Way]) -> Check:
    """Whether workers can reach the driver at `address`, or at any of its `own`.

    `found`: the ways to the workers' machines, as far as they are known.
    """
    known, near = [way for way in found if way.there], is_near(own, found)
    right = sorted({way.begins for way in known if way.begins and not loopback(way.begins)})
    outside = right or sorted(one for one in own if not loopback(one))
    if address is None:
        if outside or near:
            offered = sorted(one for one in own if not loopback(one)) or sorted(own)
            return _compared(offered, known, near)
        cure = "connect it to the network that the nodes are on, and name its address there (address: ...)"
        return failed("address", "this machine has no address but the loopback's", cure)
    named = f"set address: {' or '.join(outside)}, or leave address out" if outside else "leave address out"
    if loopback(address) and not known:
        return unknown("address", f"only what runs on this machine can call {address}", named)
    if loopback(address) and not near:
        return failed("address", f"{address} is this machine only for itself: workers cannot call it", named)
    if address not in own:
        return failed("address", f"{address} is no address of this machine", named)
    return _compared([address], known, near)


def other_call(call: Call, own: Collection[str], found: Sequence[Way]) -> Check:
    """The same of an address that something else than the executor listens on."""
    if call.address not in own and not loopback(call.address):
        detail = (
            f"workers call {call.address}, which is no address of this machine: it must lead here; {_PROBE}"
        )
        return unknown(call.name, detail)
    said = call_back(call.address, own, found)
    right = sorted({way.begins for way in found if way.begins and not loopback(way.begins)})
    cure = f"set {call.field} to {' or '.join(right) or 'an address that they reach'}" if said.cure else ""
    return replace(said, name=call.name, cure=cure)


def _compared(offered: Sequence[str], known: Sequence[Way], near: bool) -> Check:
    """What workers are told to call, beside the ways that lead to them."""
    told = f"workers are told to call {', '.join(offered)}"
    if near:
        return ok("address", f"{told}, and are on this machine")
    if not known:
        return unknown("address", f"{told}; no node's address is known here, so only {_PROBE}")
    lost = [way.said for way in known if not way.begins]
    if len(lost) == len(known):
        cure = "connect it to the network that the nodes are on: `ip route get` must find a way to them"
        return failed("address", f"{told}, but this machine has no way to {', '.join(lost)}", cure)
    other = next((way for way in known if way.begins and way.begins not in offered), None)
    if other:
        detail = f"{told}, but the way from here to {other.said} begins at {other.begins}; {_PROBE}"
        return unknown("address", detail, f"set address: {other.begins}, or leave address out")
    if lost:
        return unknown("address", f"{told}; this machine has no way to {', '.join(lost)}; {_PROBE}")
    return ok("address", f"{told}, where the way from here to {known[0].said} begins")
