"""Gradients of a batch that a team's members share: added up, so that all take the same step.

Does not know: which members there are, or how they speak.
"""

from __future__ import annotations

import torch
from torch import nn

from parslfl.learning import Team


@torch.no_grad()
def pool(weights: list[nn.Parameter], loss: torch.Tensor, share: float, team: Team) -> torch.Tensor:
    """Give every weight the gradient over the team's whole batch, of which `share` was here; its loss. A
    weight that has a gradient nowhere gets none."""
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    there = torch.tensor([float(w.grad is not None) for w in weights], device=loss.device)
    pieces = [one.reshape(-1) for one in (*gradients, there, loss)]
    flat = torch.cat(pieces).mul_(share)  # of float32 at least, as `there` is
    total = flat.cpu().numpy()
    team.add_up(total)
    *parts, there, loss = torch.from_numpy(total).to(flat.device).split([one.numel() for one in pieces])
    for weight, part, found in zip(weights, parts, there.tolist(), strict=True):
        weight.grad = part.view_as(weight).to(weight.dtype) if found else None
    return loss
