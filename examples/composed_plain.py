"""A policy and a critic in plain PyTorch: a module that does not ask for dicts receives tensors.

python examples/composed_plain.py
"""

import sys

from torch import nn

from antelope import ml


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 2)
        )

    def forward(self, x):
        return self.layers(x)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)
        )

    def forward(self, x):
        return self.layers(x)


if __name__ == "__main__":
    run = ml("task=rl/cartpole_ppo", *sys.argv[1:], policy=Actor, critic=Critic)
    print(max(row["return"] for row in run.history if row["mode"] == "eval"))
