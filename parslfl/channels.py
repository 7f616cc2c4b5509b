"""How a site's models and updates travel, as its site file says it.

Does not know: how that is done; `transport/` does it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from parslfl.transport.proxystore import CONNECTORS
from parslfl_executors.fields import FieldError, Settings

_PORTS = 65535

Port = Annotated[int, Field(strict=True, ge=1, le=_PORTS)]


def _host(text: str) -> str:
    if not text or any(mark in text for mark in "/ []") or (text.count(":") == 1):
        raise FieldError(f"expected a name or number such as 10.0.0.1 (the port is `port`), got {text!r}")
    return text


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > _PORTS or "/" in host:
        raise FieldError(f"expected HOST:PORT such as 0.0.0.0:54001, got {text!r}")
    return text


def _connector(text: str) -> str:
    if text not in CONNECTORS and not re.fullmatch(r"\w+(\.\w+)+", text):
        raise FieldError(f"expected package.module.Class, or one of {', '.join(CONNECTORS)}, got {text!r}")
    return text


class File(Settings):
    """Models and updates as files in a folder that the driver and the site's workers share.

    `path`: that folder, under the same name everywhere; by default the run directory.
    """

    kind: Literal["file"] = "file"
    path: str | None = None


class Inline(Settings):
    """Models and updates inside the tasks and their results: no shared folder, models of at most 8 MiB."""

    kind: Literal["inline"] = "inline"


class Grpc(Settings):
    """Models and updates as streams over gRPC with TLS, to and from the driver: no shared folder.

    `address`, `port`: where the site's workers reach the driver; without them the executor's
    `address`, else this machine's own, and any free port. `listen`: HOST:PORT to listen on where
    that differs, as behind a NAT or a forwarded port.
    """

    kind: Literal["grpc"] = "grpc"
    address: Annotated[str, AfterValidator(_host)] | None = None
    port: Port | None = None
    listen: Annotated[str, AfterValidator(_listen)] | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.listen is not None and self.address is None:
            raise FieldError("name the address where workers reach what is listened on", "address")
        return self


class ProxyStore(Settings):
    """Models and updates as objects in a store that ProxyStore has a connector for.

    `connector`: file, redis, endpoint, globus, or package.module.Class. `options`: its arguments.
    """

    kind: Literal["proxystore"] = "proxystore"
    connector: Annotated[str, AfterValidator(_connector)]
    options: dict[str, JsonValue] = Field(default_factory=dict)
