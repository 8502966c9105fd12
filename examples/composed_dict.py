"""A screen and an inventory in, two actions out, an LSTM between: one trunk for policy and critic.

python examples/composed_dict.py [env=Errand model.steps=18]
"""

import sys

import torch
from torch import nn

from antelope import ml


class Trunk(nn.Module):
    def __init__(self, obs_shapes, action_logits_shapes):
        super().__init__()
        layers = []
        for i, o in (3, 8), (8, 16), (16, 32):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.screen = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(32), nn.Tanh())
        self.inventory = nn.Sequential(nn.Linear(*obs_shapes["inventory"], 128), nn.Tanh())
        self.both = nn.Sequential(nn.Linear(32 + 128, 128), nn.ReLU())
        self.memory = nn.LSTM(128, 32, batch_first=True)
        self.dense = nn.Sequential(nn.Linear(32, 32), nn.ReLU())
        self.heads = nn.ModuleDict({k: nn.Linear(32, *n) for k, n in action_logits_shapes.items()})

    def forward(self, obs, state=None):  # Sequences [B, T, ...].
        screens = obs["screen"].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        screen = self.screen(screens).unflatten(0, obs["screen"].shape[:2])
        both = self.both(torch.cat((screen, self.inventory(obs["inventory"])), -1))
        out, state = self.memory(both, state)
        return {name: head(self.dense(out)) for name, head in self.heads.items()}, state


class Critic(Trunk):
    def __init__(self, obs_shapes):
        super().__init__(obs_shapes, {"value": (1,)})


if __name__ == "__main__":
    run = ml("task=rl/workshop_ppo", *sys.argv[1:], policy=Trunk, critic=Critic)
