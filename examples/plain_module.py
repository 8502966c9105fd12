"""Any `nn.Module` with a `forward` trains: here on two NumPy arrays, as a regressor.

python examples/plain_module.py
"""

import sys

import numpy as np
from torch import nn

from antelope import ml


class Regressor(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(in_features, 64), nn.Tanh(), nn.Linear(64, out_features)
        )

    def forward(self, obs):
        return self.network(obs)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (2000, 2))
    y = np.sin(x[:, 0]) * x[:, 1]  # Float targets: regression.
    run = ml(*sys.argv[1:], model=Regressor, dataset=(x, y), lr=1e-2, epochs=30)
    print(f"R2 on held-out data: {run.metrics['r2']:.3f}")
