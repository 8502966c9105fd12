"""STAR: moves the weights to where a memory's predictions change most, and learns there to keep them.

Source: Eskandar et al. (2025), "STAR: Stability-Inducing Weight Perturbation for Continual Learning",
arXiv 2503.01595. The perturbation is that of Wu et al. (2020), AWP, arXiv 2004.05884.
"""

from __future__ import annotations

import copy
from argparse import ArgumentParser

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import ContinualModel

# Relative size of a first random move: at the very same weights the divergence has no slope.
_TINY = 1e-20


def add_perturb_args(parser: ArgumentParser) -> None:
    """Declare `p_steps`, `p_lam` and `p_gamma`."""
    parser.add_argument("--p-steps", type=int, default=1, help="steps of the perturbation")
    parser.add_argument("--p-lam", type=float, default=0.01, help="weight of the loss")
    parser.add_argument(
        "--p-gamma",
        type=float,
        default=0.05,
        help="size of the perturbation, relative to the weights",
    )


class Perturber:
    """Called with rows of a memory, adds to the gradients of `continual_model.net` those of STAR's loss.

    Args:
        continual_model: Its `net` is perturbed, as `args.p_steps`, `p_lam` and `p_gamma` say.
    """

    def __init__(self, continual_model: ContinualModel):
        self.args, self.device = continual_model.args, continual_model.device
        self.net = continual_model.net
        # A second network: the search for a move must not add to the gradients of the first.
        self.proxy = copy.deepcopy(self.net)
        self.steps, self.lam, self.gamma = self.args.p_steps, self.args.p_lam, self.args.p_gamma

    def __call__(self, X: Tensor, y: Tensor) -> None:
        """Backpropagate the loss of rows `[B, *shape]` with labels `[B]`; the weights are then restored."""
        rows, labels = X.to(self.device), y.to(self.device)
        with torch.no_grad():
            before = F.softmax(self.net(rows), dim=-1)
        # Only predictions that are right are worth keeping.
        right = (before.argmax(1) == labels).float()
        if right.sum() < 2:
            self.net(rows)  # As in the reference code, so that batch normalisation sees the rows.
            return
        moves = self._moves(rows, before, right)
        weights = [p for p in self.net.parameters() if p.dim() > 1]
        with torch.no_grad():
            for weight, move in zip(weights, moves, strict=True):
                weight.add_(move)
        (self.lam * self._change(self.net, rows, before, right)).backward()
        with torch.no_grad():
            for weight, move in zip(weights, moves, strict=True):
                weight.sub_(move)

    def _moves(self, rows: Tensor, before: Tensor, right: Tensor) -> list[Tensor]:
        """The moves, one for each weight of more than one dimension, that change predictions most."""
        self.proxy.load_state_dict(self.net.state_dict())
        self.proxy.train()
        pairs = list(zip(self.net.parameters(), self.proxy.parameters(), strict=True))
        pairs = [(weight, moved) for weight, moved in pairs if moved.dim() > 1]
        with torch.no_grad():
            for _, moved in pairs:
                moved.add_(torch.randn_like(moved) * moved.norm() * _TINY)
        for _ in range(self.steps):
            self.proxy.zero_grad()
            self._change(self.proxy, rows, before, right).backward()
            with torch.no_grad():
                for weight, moved in pairs:
                    if (slope := moved.grad) is not None:
                        length = weight.norm() / (slope.norm() + _TINY)
                        moved.add_(slope, alpha=float(self.gamma / self.steps * length))
        return [(moved - weight).detach() for weight, moved in pairs]

    @staticmethod
    def _change(net: nn.Module, rows: Tensor, before: Tensor, right: Tensor) -> Tensor:
        """Mean KL divergence of predictions from `before`, over the rows that were right."""
        now = F.log_softmax(net(rows), dim=1)
        change: Tensor = (
            F.kl_div(now, before, reduction="none").sum(1) * right
        ).sum() / right.sum()
        return change
