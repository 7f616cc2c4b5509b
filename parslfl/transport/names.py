"""The transports that a site can name.

Does not know: which sites there are.
"""

from parslfl.protocols import Transport
from parslfl.transport.file import File
from parslfl.transport.grpc import Grpc
from parslfl.transport.inline import Inline
from parslfl.transport.proxystore import ProxyStore

TRANSPORTS: dict[str, type[Transport]] = {
    "file": File,
    "grpc": Grpc,
    "inline": Inline,
    "proxystore": ProxyStore,
}
