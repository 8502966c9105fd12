"""The shortest model: `learn` returns a loss, Antelope does the rest.

python examples/returns_loss.py
python examples/returns_loss.py dataset=MNIST data_dir=../shared/data epochs=5 batch_size=128
"""

import sys

import torch.nn.functional as F
from torch import nn

from antelope import ml


class Model(nn.Module):
    def __init__(self, in_features, out_features, hidden=256):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out_features)
        )

    def forward(self, obs):
        return self.network(obs)

    def learn(self, replay):
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


if __name__ == "__main__":
    run = ml(*sys.argv[1:], model=Model)
    print(run.metrics)
