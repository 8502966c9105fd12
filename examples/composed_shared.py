"""Only the policy embeds the screen; the critic receives the embedding among its inputs."""

import sys

import torch
from torch import nn

from antelope import ml


class Critic(nn.Module):
    def __init__(self, obs_shapes, heads=None):
        super().__init__()
        self.inventory = nn.Sequential(nn.Linear(*obs_shapes["inventory"], 128), nn.Tanh())
        self.both, self.dense = nn.Linear(32 + 128, 128), nn.Linear(32, 32)
        self.memory, heads = nn.LSTM(128, 32, batch_first=True), heads or {"value": (1,)}
        self.heads = nn.ModuleDict({name: nn.Linear(32, *n) for name, n in heads.items()})

    def forward(self, obs, state=None):  # Sequences [B, T, ...].
        both = self.both(torch.cat((obs["embedding"], self.inventory(obs["inventory"])), -1))
        out, state = self.memory(both.relu(), state)
        return {name: head(self.dense(out).relu()) for name, head in self.heads.items()}, state


class Policy(Critic):
    def __init__(self, obs_shapes, action_logits_shapes):
        super().__init__(obs_shapes, action_logits_shapes)
        layers = []
        for i, o in (3, 8), (8, 16), (16, 32):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.screen = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(32), nn.Tanh())

    def forward(self, obs, state=None):
        screens = obs["screen"].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        embedding = self.screen(screens).unflatten(0, obs["screen"].shape[:2])
        out, state = super().forward({**obs, "embedding": embedding}, state)
        return {**out, "embedding": embedding}, state  # With .detach() only the policy trains it.


if __name__ == "__main__":
    run = ml("task=rl/workshop_ppo", *sys.argv[1:], policy=Policy, critic=Critic)
