"""torchvision loads here whether or not its compiled operators do; each test has its own Python."""

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="no torchvision")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_datasets_transforms_and_models_work() -> None:
    said = run(
        "import logging; logging.basicConfig(); logging.getLogger('parslfl').setLevel('DEBUG')\n"
        "from parslfl.vision import load_torchvision\n"
        "vision = load_torchvision()\n"
        "assert load_torchvision() is vision\n"
        "import torch\n"
        "from torchvision import transforms\n"
        "from torchvision.datasets import CIFAR10\n"
        "model = vision.models.resnet18(num_classes=10)\n"
        "assert sum(p.numel() for p in model.parameters()) == 11_181_642\n"
        "model(torch.zeros(2, 3, 32, 32)).sum().backward()\n"
        "assert model.conv1.weight.grad is not None\n"
        "print('compiled', vision.extension._has_ops())"
    )
    # Silent where the plain import works, one line of debug log where it does not.
    assert said.count("going on without them") == said.count("compiled False")


def test_another_reason_is_not_hidden() -> None:
    run(
        "import importlib, sys, torch\n"
        "def refuse(name, *rest):\n"
        "    if name == 'torchvision': raise RuntimeError('another reason')\n"
        "class Finder:\n"
        "    find_spec = staticmethod(refuse)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "from parslfl.vision import load_torchvision\n"
        "try: load_torchvision()\n"
        "except RuntimeError as error: assert str(error) == 'another reason'\n"
        "else: raise AssertionError"
    )


def test_importing_the_module_loads_no_torch() -> None:
    run("import sys, parslfl.vision; assert not {'torch', 'torchvision'} & set(sys.modules)")
