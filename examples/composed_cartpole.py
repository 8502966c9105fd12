"""A policy and a critic, two small modules that receive and return dicts and are told their shapes.

python examples/composed_cartpole.py
python examples/composed_cartpole.py seed=1 policy.hidden=[64] critic.hidden=[64]
"""

import sys

from torch import nn

from antelope import ml
from antelope.agents.blocks import MLP


class Policy(nn.Module):
    def __init__(self, obs_shapes, action_logits_shapes, hidden=(16, 32)):
        super().__init__()
        self.network = MLP(*obs_shapes["obs"], *action_logits_shapes["action"], hidden, nn.Tanh)

    def forward(self, obs):
        return {"action": self.network(obs["obs"])}


class Critic(nn.Module):
    def __init__(self, obs_shapes, hidden=(16, 32)):
        super().__init__()
        self.network = MLP(*obs_shapes["obs"], 1, hidden, nn.Tanh)

    def forward(self, obs):
        return {"value": self.network(obs["obs"])}


if __name__ == "__main__":
    run = ml("task=rl/cartpole_ppo", *sys.argv[1:], policy=Policy, critic=Critic)
    print(max(row["return"] for row in run.history if row["mode"] == "eval"))
