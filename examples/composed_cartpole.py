"""A policy and a critic of one's own, by name: dicts in, dicts out. PPO trains both."""

import sys

from torch import nn

from antelope import ml


def layers(in_features, hidden):
    first, second = hidden
    return nn.Sequential(
        nn.Linear(in_features, first), nn.Tanh(), nn.Linear(first, second), nn.Tanh()
    )


class Policy(nn.Module):
    def __init__(self, obs_shapes, action_logits_shapes, hidden=(16, 32)):
        super().__init__()
        self.body = layers(*obs_shapes["obs"], hidden)
        self.head = nn.Linear(hidden[-1], *action_logits_shapes["action"])

    def forward(self, obs):
        return {"action": self.head(self.body(obs["obs"]))}


class Critic(nn.Module):
    def __init__(self, obs_shapes, hidden=(16, 32)):
        super().__init__()
        self.body = layers(*obs_shapes["obs"], hidden)
        self.head = nn.Linear(hidden[-1], 1)

    def forward(self, obs):
        return {"value": self.head(self.body(obs["obs"]))}


words = "task=rl/cartpole_ppo", "train_steps=12000", *sys.argv[1:]
run = ml(*words, policy=Policy, critic=Critic)
print(run.metrics["return"])
