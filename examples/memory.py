"""Experience replay written inside `learn`, with a `Memory` that is saved with the model.

python examples/memory.py
python examples/memory.py dataset=MNIST data_dir=../shared/data epochs=1 resume=true
"""

import sys

import torch.nn.functional as F
from torch import nn

from antelope import Memory, ml


class Model(nn.Module):
    def __init__(self, in_features, out_features, capacity=200):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 100), nn.ReLU(), nn.Linear(100, out_features)
        )
        self.memory = Memory(capacity)

    def forward(self, obs):
        return self.network(obs)

    def learn(self, replay, log):
        batch = next(replay)
        loss = log.new = F.cross_entropy(self(batch.obs), batch.label)
        if len(self.memory):
            past = self.memory.sample(len(batch))
            loss = loss + F.cross_entropy(self(past.obs), past.label)
        self.memory.add(batch)
        return loss


if __name__ == "__main__":
    run = ml(*sys.argv[1:], model=Model, tasks=5, epochs=3)
    print(run.accuracy_matrix.round(3))
