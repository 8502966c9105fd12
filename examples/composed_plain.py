"""Modules that somebody wrote without having heard of this library: they need not change."""

import sys

import torch
from torch import nn

from antelope import ml

policy = nn.Sequential(
    nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2)
)


class ValueNet(nn.Module):
    def __init__(self, num_inputs=4):
        super().__init__()
        self.fc1 = nn.Linear(num_inputs, 16)
        self.fc2 = nn.Linear(16, 32)
        self.out = nn.Linear(32, 1)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        return self.out(torch.relu(self.fc2(x)))


words = "task=rl/cartpole_ppo", "train_steps=12000", *sys.argv[1:]
run = ml(*words, policy=policy, critic=ValueNet())
print(run.metrics["return"])
