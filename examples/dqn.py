"""A deep Q-network of your own, which solves CartPole (a return of 475) within minutes."""

import random
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from antelope import ml


class MyDQN(nn.Module):
    def __init__(self, in_features, num_actions, width=256):
        super().__init__()
        layers = nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        self.q = nn.Sequential(*layers, nn.Linear(width, num_actions))
        self.target, self.steps = deepcopy(self.q).requires_grad_(False), 0

    def forward(self, obs):
        return self.q(obs)

    def act(self, obs):
        self.steps += self.training
        epsilon = max(0.05, 1 - self.steps / 8000) if self.training else 0.0
        return torch.randint(2, (1,)) if random.random() < epsilon else self.q(obs).argmax(-1)

    def learn(self, replay, log):
        batch = next(replay)
        for old, new in zip(self.target.parameters(), self.q.parameters(), strict=True):
            old.data.lerp_(new.data, 0.01)
        best = self.q(batch.next_obs).argmax(-1, keepdim=True)
        value = self.target(batch.next_obs).gather(-1, best).squeeze(-1)
        q = self.q(batch.obs).gather(-1, batch.action[:, None]).squeeze(-1)
        return F.smooth_l1_loss(q, batch.reward + batch.discount * value)


if __name__ == "__main__":
    words = "batch_size=64", "lr=1e-3", "learn_every=2", "train_steps=30000", "eval_every=2000"
    run = ml(*words, model=MyDQN, env="CartPole-v1")
    print(max(row["return"] for row in run.history if row["mode"] == "eval"))
