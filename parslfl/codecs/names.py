"""The codecs that a spec can name.

Does not know: how any of them works.
"""

from parslfl.codecs.raw import Raw
from parslfl.protocols import Codec

CODECS: dict[str, type[Codec]] = {"raw": Raw}
