"""What a look at a site found before it is used, and what to do where it found a fault.

Does not know: any resource manager, or what the site is wanted for.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

#: File systems that machines share.
_SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "panfs", "afs", "glusterfs", "orangefs", "wekafs",
           "cifs", "smb", "9p", "virtiofs")  # fmt: skip


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and for a fault the cure.

    `unknown`: it cannot be told from here, or without starting a worker.
    """

    name: str
    verdict: Literal["ok", "failed", "unknown"]
    detail: str
    cure: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name, "ok", detail)


def failed(name: str, detail: str, cure: str) -> Check:
    return Check(name, "failed", " ".join(detail.split()), cure)


def unknown(name: str, detail: str) -> Check:
    return Check(name, "unknown", " ".join(detail.split()))


def loopback(address: str) -> bool:
    """Whether only this machine itself can reach `address`."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def call_back(address: str | None, own: Sequence[str], peers: Sequence[str]) -> Check:
    """Whether workers can reach the driver at `address`, or at any of its `own`.

    `peers`: addresses of the workers' machines, as far as they are known.
    """
    name, offered = "address", sorted(own)
    near = bool(peers) and all(map(loopback, peers))
    outside = [one for one in offered if not loopback(one)]
    if address is None:
        if outside or near:
            return ok(name, f"workers are told to call {', '.join(outside or offered)}")
        cure = "connect it to the network that the nodes are on, and name its address there (address: ...)"
        return failed(name, "this machine has no address but the loopback's", cure)
    named = f"name {' or '.join(outside)}, or leave address out" if outside else "leave address out"
    if loopback(address) and not peers:
        return unknown(name, f"only what runs on this machine can call {address}")
    if loopback(address) and not near:
        return failed(name, f"{address} is this machine only for itself: workers cannot call it", named)
    if address not in own:
        return failed(name, f"{address} is no address of this machine", named)
    return ok(name, f"workers are told to call {address}, which is this machine's")


def shared_folder(name: str, folder: Path) -> Check:
    """Whether other machines see `folder` too, as far as its file system tells."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    if not os.access(there, os.W_OK):
        return failed(name, f"{there} cannot be written", "name a folder that you may write (--run-dir)")
    kind = _file_system(there)
    if kind.startswith(_SHARED):
        return ok(name, f"{folder} is on {kind}, which machines share")
    return unknown(name, f"{folder} is on {kind}: the nodes must see it under the same name")


def _file_system(path: Path) -> str:
    inside = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    found = max(inside, key=lambda part: len(part.mountpoint), default=None)
    return str(found.fstype) if found else "an unknown file system"
