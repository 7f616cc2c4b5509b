"""Bytes as objects in any store that ProxyStore has a connector for: Redis, Globus, endpoints, files.

Only the connector is used, which moves plain bytes; ProxyStore's own proxies and serializers are not,
so nothing is unpickled. A reference carries the object's key. A connector chooses the keys, so
nothing can be found by name: closed rounds are not heard of, as with `inline`.

Does not know: what the bytes mean, or any one store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, ClassVar, get_type_hints

from parslfl.errors import PayloadError
from parslfl.messages import Ref
from parslfl.protocols import Buffer

#: Connectors that can be named without their path.
CONNECTORS = {
    "endpoint": "proxystore.connectors.endpoint.EndpointConnector",
    "file": "proxystore.connectors.file.FileConnector",
    "globus": "proxystore.connectors.globus.GlobusConnector",
    "redis": "proxystore.connectors.redis.RedisConnector",
}
#: What a key's parts look like; a worker's key must not lead a connector to another place.
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_:-]{0,199}")


@dataclass(frozen=True)
class ProxyStore:
    """`connector`: a name above, or package.module.Class. `options`: its arguments, a JSON object."""

    connector: str
    options: str = "{}"
    fetches: ClassVar[bool] = True

    def put(self, name: str, buffers: Sequence[Buffer], checksum: str) -> Ref:
        data = b"".join(buffers)
        key = self._call("put", data)
        return Ref(size=len(data), checksum=checksum, data=json.dumps(list(key)).encode())

    def get(self, ref: Ref) -> memoryview:
        found = self._call("get", self._key(ref))
        if found is None:
            raise PayloadError(f"{self.connector} has no object {ref.data!r} (any more)")
        view = memoryview(found).cast("B").toreadonly()
        if len(view) != ref.size:
            raise PayloadError(f"an object of {self.connector} has {len(view)} bytes, announced {ref.size}")
        return view

    def drop(self, ref: Ref) -> None:
        self._call("evict", self._key(ref))

    def has(self, name: str) -> bool:
        return False

    def _key(self, ref: Ref) -> Any:
        try:
            found = json.loads(ref.data)
            parts = [tuple(part) if isinstance(part, list) else part for part in found]
            texts = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
            if isinstance(found, list) and all(one is None or _PART.fullmatch(one) for one in texts):
                return get_type_hints(type(self._opened()).put)["return"](*parts)
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise PayloadError(f"{ref.data[:80]!r} is no key of {self.connector}")

    def _call(self, method: str, argument: Any) -> Any:
        """Whatever a store raises comes out as one sentence."""
        opened = self._opened()
        try:
            return getattr(opened, method)(argument)
        except Exception as error:
            raise PayloadError(
                f"ProxyStore's {self.connector} cannot {method}: {type(error).__name__}: {error}"
            ) from error

    def _opened(self) -> Any:
        try:
            return _connector(self.connector, self.options)
        except ImportError as error:
            cure = "pip install 'parslfl[proxystore]', and what the connector needs, here and at the site"
            raise PayloadError(f"ProxyStore's {self.connector} cannot be had: {error}; {cure}") from None
        except Exception as error:
            raise PayloadError(f"ProxyStore's {self.connector} refuses {self.options}: {error}") from error


@lru_cache(maxsize=8)
def _connector(name: str, options: str) -> Any:
    """One a process and store. It is never closed: `FileConnector` would delete its folder."""
    module, _, kind = CONNECTORS.get(name, name).rpartition(".")
    return getattr(import_module(module), kind)(**json.loads(options))
