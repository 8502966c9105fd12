"""A model with its own loss and optimiser: `learn` updates it and returns nothing.

python examples/own_optimiser.py
python examples/own_optimiser.py dataset=MNIST data_dir=../shared/data epochs=5 batch_size=128
"""

import sys

import torch
from torch import nn

from antelope import ml


class Model(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 256), nn.ReLU(), nn.Linear(256, out_features)
        )
        self.loss = nn.CrossEntropyLoss()
        self.optim = torch.optim.Adam(self.parameters(), lr=1e-3)

    def forward(self, obs):
        return self.network(obs)

    def learn(self, replay, log):
        batch = next(replay)
        loss = self.loss(self(batch.obs), batch.label)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        log.loss = loss


if __name__ == "__main__":
    run = ml(*sys.argv[1:], model=Model)
    print(run.metrics)
