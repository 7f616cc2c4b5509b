"""Gradients of a batch that a team's members share: added up, so that all take the same step.

Does not know: which members there are, or how they speak.
"""

from __future__ import annotations

import torch
from torch import nn

from parslfl.learning import Team


@torch.no_grad()
def pool(weights: list[nn.Parameter], loss: torch.Tensor, share: float, team: Team) -> torch.Tensor:
    """Give every weight the gradient over the team's whole batch, of which `share` was here; its loss."""
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([one.reshape(-1) for one in (*gradients, loss)]).mul_(share)
    total = flat.cpu().numpy()
    team.add_up(total)
    *parts, loss = torch.from_numpy(total).to(flat.device).split([one.numel() for one in (*weights, loss)])
    for weight, part in zip(weights, parts, strict=True):
        weight.grad = part.view_as(weight)
    return loss
