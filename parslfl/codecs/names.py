"""The codecs that a spec can name; `+` joins several (see `chain`).

Does not know: how any of them works.
"""

from parslfl.codecs.cast import Bf16, Fp16
from parslfl.codecs.lowrank import LowRank
from parslfl.codecs.quantize import Quantize
from parslfl.codecs.randomk import RandomK
from parslfl.codecs.raw import Raw
from parslfl.codecs.topk import TopK
from parslfl.codecs.zstd import Zstd
from parslfl.protocols import Codec

CODECS: dict[str, type[Codec]] = {
    "raw": Raw,
    "fp16": Fp16,
    "bf16": Bf16,
    "quantize": Quantize,
    "topk": TopK,
    "randomk": RandomK,
    "lowrank": LowRank,
    "zstd": Zstd,
}
