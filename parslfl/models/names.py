"""The models that a spec can name.

Does not know: how any of them works.
"""

from parslfl.models.cnn import Cnn
from parslfl.models.resnet import ResNet18
from parslfl.models.softmax import Softmax
from parslfl.protocols import Model

MODELS: dict[str, type[Model]] = {"cnn": Cnn, "resnet18": ResNet18, "softmax": Softmax}
