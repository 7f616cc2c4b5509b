"""Where workers are told to call, and the ways that the kernel would take to them."""

from __future__ import annotations

import pytest

from parslfl_executors import address_checks
from parslfl_executors.address_checks import Way, call_back, is_near, other_call, past_gateway, ways
from parslfl_executors.checks import Call

LAN, VPN, LOOP = (
    Way("n1", "10.0.0.9", "10.0.0.1"),
    Way("n1", "10.8.0.9", "10.8.0.1"),
    Way("n1", "127.0.0.1", "127.0.0.1"),
)
NAMELESS, CUT = Way("n1", "", ""), Way("n1", "10.0.0.9", "")
ALL = ["10.0.0.1", "10.8.0.1", "127.0.0.1"]

ADDRESSES = [
    (None, ALL, [LAN], "ok", "10.0.0.1, 10.8.0.1, where the way from here to n1 (10.0.0.9) begins"),
    (None, ["127.0.0.1"], [CUT], "failed", "no address but the loopback's"),
    (None, ["127.0.0.1"], [LOOP], "ok", "call 127.0.0.1, and are on this machine"),
    (None, ALL, [NAMELESS], "unknown", "no node's address is known here"),
    (None, ALL, [CUT], "failed", "this machine has no way to n1 (10.0.0.9)"),
    (None, ALL, [LAN, CUT], "unknown", "this machine has no way to n1 (10.0.0.9)"),
    ("10.0.0.1", ALL, [LAN], "ok", "call 10.0.0.1, where the way from here to n1 (10.0.0.9) begins"),
    ("10.0.0.1", ALL, [VPN], "unknown", "but the way from here to n1 (10.8.0.9) begins at 10.8.0.1"),
    ("127.0.0.1", ALL, [VPN], "failed", "only for itself"),
    ("127.0.0.1", ALL, [LOOP], "ok", "127.0.0.1"),
    ("127.0.0.1", ALL, [Way("me", "10.0.0.1", "10.0.0.1")], "ok", "127.0.0.1, and are on this machine"),
    ("127.0.0.1", ["127.0.0.1"], [], "unknown", "only what runs on this machine"),
    ("10.0.0.2", ALL, [LAN], "failed", "10.0.0.2 is no address of this machine"),
    ("login1", ALL, [LAN], "failed", "login1 is no address of this machine"),
]  # fmt: skip


@pytest.mark.parametrize(("address", "own", "found", "verdict", "detail"), ADDRESSES)
def test_where_workers_call(
    address: str | None, own: list[str], found: list[Way], verdict: str, detail: str
) -> None:
    said = call_back(address, own, found)
    assert (said.verdict, detail in said.detail) == (verdict, True), said
    assert said.cure or said.verdict != "failed"


def test_the_cure_names_the_address_that_the_nodes_reach() -> None:
    assert call_back("127.0.0.1", ALL, [VPN]).cure == "set address: 10.8.0.1, or leave address out"
    assert call_back("10.0.0.1", ALL, [VPN]).cure == "set address: 10.8.0.1, or leave address out"
    assert call_back("10.0.0.7", ALL, []).cure == "set address: 10.0.0.1 or 10.8.0.1, or leave address out"


def test_the_kernel_tells_where_a_way_begins() -> None:
    assert ways(["localhost"]) == [Way("localhost", "127.0.0.1", "127.0.0.1")]
    assert ways(["no-such-host.invalid"]) == [Way("no-such-host.invalid", "", "")]
    assert is_near(["10.0.0.1"], ways(["127.0.0.1"]))
    assert not past_gateway(ways(["127.0.0.1"]))
    assert not is_near(["10.0.0.1"], [])


def test_of_many_nodes_a_few_are_asked_for_spread_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_checks, "_way", lambda peer: Way(peer, peer, "x"))
    assert [way.peer for way in ways([f"n{i}" for i in range(1000)])] == ["n0", "n250", "n500", "n750"]
    assert [way.peer for way in ways(["a", "b", "c", "d", "e"])] == ["a", "b", "c", "d"]


def test_an_address_of_something_else_has_a_field_of_its_own() -> None:
    def said(address: str, *found: Way) -> tuple[str, str]:
        check = other_call(Call("exchange address", address, "sites.hpc.transport.address"), ALL, found)
        assert check.name == "exchange address"
        return check.verdict, check.cure

    assert said("10.0.0.1", LAN) == ("ok", "")
    assert said("10.0.0.1", VPN) == ("unknown", "set sites.hpc.transport.address to 10.8.0.1")
    assert said("127.0.0.1", LAN) == ("failed", "set sites.hpc.transport.address to 10.0.0.1")
    assert said("203.0.113.7", LAN) == ("unknown", "")  # a NAT, perhaps
    assert said("127.0.0.1", LOOP) == ("ok", "")
