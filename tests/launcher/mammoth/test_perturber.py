"""STAR's perturbation of the weights."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

import torch
from torch import nn

from antelope.launcher import mammoth as m


def test_star_moves_weights_to_learn_and_puts_them_back() -> None:
    torch.manual_seed(0)
    parser = ArgumentParser()
    m.add_perturb_args(parser)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    args = parser.parse_args([])
    rows = torch.randn(16, 3)
    labels = net(rows).argmax(1)
    before = [p.detach().clone() for p in net.parameters()]
    perturber = m.Perturber(Namespace(net=net, args=args, device=torch.device("cpu")))
    perturber(rows, labels)
    assert all(
        torch.allclose(p, b, atol=1e-6) for p, b in zip(net.parameters(), before, strict=True)
    )
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and float(g.abs().sum()) > 0 for g in gradients)
    # Where all predictions are wrong there is nothing to keep.
    net.zero_grad()
    perturber(rows, 1 - labels)
    assert all(p.grad is None for p in net.parameters())
