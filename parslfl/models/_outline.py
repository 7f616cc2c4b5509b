"""Arrays without elements: how a network is cut before it exists.

An outline has the shape of an array and knows which indices of a whole array are left along each of
its dimensions. torch-pruning selects from it as it would from the array itself.

Does not know: networks, or which indices should be left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from parslfl.submodel import Indices


class Outline(torch.Tensor):
    """Shaped like an array: on "meta" it has no elements; on "cpu" it is one zero, seen everywhere.

    Networks compute with it. While gradients are off it is cut instead: whatever is selected from it is
    an outline again, and it says that it is where its indices are.
    """

    at: tuple[torch.Tensor, ...]
    trained: bool
    on: torch.device

    @staticmethod
    def of(array: torch.Tensor, device: str) -> Outline:
        """The outline of all of `array`, a parameter or a buffer."""
        zero = torch.zeros((), dtype=array.dtype, device=device)
        made = _left([torch.arange(n) for n in array.shape], zero, trained=array.requires_grad)
        if isinstance(array, nn.Parameter):
            made.requires_grad_(
                array.is_floating_point()
            )  # torch-pruning follows gradients, to frozen ones too
            made._is_param = True  # noqa: SLF001 - how torch marks parameters of other types
        return made

    def cut(self, dim: int, index: Sequence[int]) -> Outline:
        """What stays along `dim`: the indices at `index`, in ascending order."""
        at = torch.as_tensor(index).sort().values
        dims = [old[at] if axis == dim % self.ndim else old for axis, old in enumerate(self.at)]
        return _left(dims, torch.zeros((), dtype=self.dtype, device=self.on), trained=self.trained)

    def kept(self, full: Sequence[int]) -> tuple[Indices | None, ...]:
        """For each dimension the indices that are left of `full` ones, or None for all."""
        return tuple(None if len(at) == n else at.numpy() for at, n in zip(self.at, full, strict=True))

    def filled(self) -> torch.Tensor:
        """An array of this shape, with memory; what is in it means nothing."""
        array = torch.empty(self.shape, dtype=self.dtype)
        return nn.Parameter(array, self.trained) if isinstance(self, nn.Parameter) else array

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if not torch.is_grad_enabled():
            if func is torch.index_select:
                return args[0].cut(*args[1:])
            if func is torch.Tensor.__getitem__ and isinstance(args[1], list):
                return args[0].cut(0, args[1])
            if func in _ITSELF:
                return args[0]
            if func == torch.Tensor.device.__get__:
                return torch.device("cpu")
        with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - torch's documentation says so
            return func(*args, **(kwargs or {}))


#: Of an outline these are the outline itself.
_ITSELF = (torch.Tensor.detach, torch.Tensor.data.__get__, torch.Tensor.to)  # type: ignore[attr-defined]


def _left(indices: Sequence[torch.Tensor], zero: torch.Tensor, *, trained: bool) -> Outline:
    made = zero.expand([len(at) for at in indices]).as_subclass(Outline)
    made.at, made.trained, made.on = tuple(indices), trained, zero.device
    return made


class Unset(TorchFunctionMode):
    """Parameters that are made meanwhile are not given random values: memory that nobody writes is none."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        array = args[0] if args else given.get("tensor")
        if func in _RANDOM and isinstance(array, nn.Parameter):
            return array
        return func(*args, **given)


#: What torch's layers call; its other functions of this kind call one of the last two.
_RANDOM = (
    nn.init.kaiming_uniform_,
    nn.init.uniform_,
    nn.init.normal_,
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
)
