"""ProxyStore's connectors as transports: keys are data, not trusted, and never unpickled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from parslfl.channels import ProxyStore as Settings
from parslfl.errors import PayloadError, RunError
from parslfl.exchange import open_exchange
from parslfl.messages import Ref
from parslfl.sites import Site
from parslfl.transport.proxystore import ProxyStore
from parslfl_executors.local import Local


@pytest.fixture
def store(tmp_path: Path) -> ProxyStore:
    return ProxyStore("file", json.dumps({"store_dir": str(tmp_path / "store")}))


@pytest.mark.parametrize(
    "key",
    ['["../secret"]', '["/etc/passwd"]', '[".hidden"]', '[""]', "[]", '["a", "b"]', '{"a": 1}', "[1]", "7",
     "null", "[[[]]]", "\x80", '["' + "a" * 300 + '"]'],
)  # fmt: skip
def test_a_key_that_no_connector_makes_is_refused(store: ProxyStore, tmp_path: Path, key: str) -> None:
    store.put("a", [b"x"], "")
    (tmp_path / "secret").write_bytes(b"1234")
    ref = Ref(4, "", data=key.encode("latin-1"))
    for act in (store.get, store.drop):
        with pytest.raises(PayloadError, match="is no key of file"):
            act(ref)
    assert (tmp_path / "secret").exists()


def test_what_was_dropped_is_gone(store: ProxyStore) -> None:
    ref = store.put("a", [b"data"], "")
    store.drop(ref)
    with pytest.raises(PayloadError, match="file has no object .*any more"):
        store.get(ref)


def test_another_connector_by_its_path() -> None:
    local = ProxyStore("proxystore.connectors.local.LocalConnector")
    ref = local.put("a", [b"one", b"two"], "")
    assert bytes(local.get(ref)) == b"onetwo"
    with pytest.raises(PayloadError, match="6 bytes, announced 7"):
        local.get(replace(ref, size=7))


@pytest.mark.parametrize(
    ("connector", "options", "words"),
    [
        ("file", {"folder": "x"}, "here: ProxyStore's file refuses .*unexpected keyword argument 'folder'"),
        ("file", {"store_dir": "/proc/none"}, "here: ProxyStore's file refuses"),
        ("no.such.Connector", {}, r"here: .* cannot be had: .*pip install 'parslfl\[proxystore\]'"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_before_anything_starts(
    tmp_path: Path, connector: str, options: dict[str, str], words: str
) -> None:
    transport = Settings(connector=connector, options=dict(options))
    site = Site(name="here", clients=1, executor=Local(), transport=transport)
    with pytest.raises(RunError, match=words):
        open_exchange(tmp_path, (site,))
