"""A model that takes its sizes from the spec of the data.

python examples/from_spec.py
python examples/from_spec.py dataset=MNIST data_dir=../shared/data epochs=5 batch_size=128
"""

import sys
from math import prod

import torch.nn.functional as F
from torch import nn

from antelope import ml


class Model(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(spec.obs.shape), 256),
            nn.ReLU(),
            nn.Linear(256, prod(spec.action.shape)),
        )

    def forward(self, obs):
        return self.network(obs)

    def learn(self, replay):
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


if __name__ == "__main__":
    run = ml(*sys.argv[1:], model=Model)
    print(run.metrics)
