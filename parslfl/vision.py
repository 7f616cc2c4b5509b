"""Imports torchvision even where its compiled operators cannot load.

A torchvision built for another torch (a CUDA build beside a CPU torch is the usual case) fails as
a whole on import, although most of it is plain Python. Naming its two missing operators first
makes transforms, data sets and models work; `ops.nms` and `io.read_image` stay unavailable.

Does not know: what torchvision is used for.
"""

from __future__ import annotations

import importlib
import logging
import sys
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

_REASON = "operator torchvision::nms does not exist"
_OPERATORS = ("nms", "qnms")
_registered: list[Any] = []  # torch forgets the operators when their Library object is collected


def load_torchvision() -> ModuleType:
    """The torchvision module.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: its import fails for any other reason than the missing operators.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _REASON not in str(error):
            raise
    log.debug("torchvision's compiled operators do not load (%s): going on without them", _REASON)
    _register_operators()
    _forget_failed_import()
    return importlib.import_module("torchvision")


def _register_operators() -> None:
    library = importlib.import_module("torch.library").Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _registered.append(library)


def _forget_failed_import() -> None:
    """Python drops only the package that failed, and its submodules would not join a new one."""
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
