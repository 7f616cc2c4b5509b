"""Looking up a model costs no torch."""

from __future__ import annotations

import subprocess
import sys


def test_names_load_neither_torch_nor_torchvision() -> None:
    code = "import sys, parslfl.models.names; print({'torch', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_softmax_trains_without_torch() -> None:
    code = """
import sys, numpy as np
from parslfl.learning import LocalWork, Samples
from parslfl.models.names import MODELS
model = MODELS["softmax"]()
samples = Samples(np.zeros((4, 1, 2, 2), np.uint8), np.zeros(4, np.int64), 2)
trained = model.train(model.init((1, 2, 2), 2, 0), samples, LocalWork(), 1, lambda: False)
model.evaluate(trained.params, samples, LocalWork())
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
