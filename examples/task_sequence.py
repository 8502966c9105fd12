"""Five tasks of two classes each, learnt one after another by an ordinary `learn`.

python examples/task_sequence.py
python examples/task_sequence.py dataset=MNIST data_dir=../shared/data epochs=1
"""

import sys

import torch.nn.functional as F
from torch import nn

from antelope import ml


class Model(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 100), nn.ReLU(), nn.Linear(100, out_features)
        )

    def forward(self, obs):
        return self.network(obs)

    def learn(self, replay):
        batch = next(replay)  # From the current task, number `replay.task`.
        return F.cross_entropy(self(batch.obs), batch.label)


if __name__ == "__main__":
    run = ml(*sys.argv[1:], model=Model, tasks=5)
    print("Row: after learning task i. Column: accuracy on task j.")
    print(run.accuracy_matrix.round(3))
