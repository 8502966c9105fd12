"""PPO in plain PyTorch, one file: what `ml(agent=PPO)` is timed against in benchmarks/rl.py.

Schulman et al. (2017), with the details of CleanRL. It learns CartPole in some seconds:

    python benchmarks/plain/ppo.py [SEED]

T time steps of a rollout, N environments, B a minibatch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn
from torch.distributions import Categorical


def network(obs_dim: int, outputs: int, gain: float) -> nn.Sequential:
    layers = [nn.Linear(obs_dim, 64), nn.Linear(64, 64), nn.Linear(64, outputs)]
    for layer, scale in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def train(
    steps: int,
    *,
    seed: int = 0,
    env_id: str = "CartPole-v1",
    num_envs: int = 8,
    rollout_steps: int = 128,
    batch_size: int = 256,
    epochs: int = 10,
    lr: float = 1e-3,
    discount: float = 0.99,
    gae_lambda: float = 0.95,
    clip: float = 0.2,
    entropy_weight: float = 0.0,
    value_weight: float = 0.5,
    max_grad_norm: float = 0.5,
    every_step: Callable[[], None] = lambda: None,
) -> nn.Module:
    """The policy network after `steps` environment steps; a rollout cut short is not learnt from."""
    torch.manual_seed(seed)
    envs = SyncVectorEnv(
        [lambda: gym.make(env_id)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
    )
    obs_dim = envs.single_observation_space.shape[0]
    policy = network(obs_dim, int(envs.single_action_space.n), 0.01)
    critic = network(obs_dim, 1, 1.0)
    parameters = [*policy.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=lr, eps=1e-5, fused=True)
    shape = (rollout_steps, num_envs)
    obs_TN, action_TN = torch.zeros(*shape, obs_dim), torch.zeros(shape, dtype=torch.int64)
    log_prob_TN, value_TN, reward_TN, over_TN = (torch.zeros(shape) for _ in range(4))
    obs = torch.from_numpy(envs.reset(seed=seed)[0])
    step = 0
    while True:
        for t in range(rollout_steps):
            if step >= steps:
                envs.close()
                return policy
            every_step()
            step += num_envs
            with torch.no_grad():
                choice = Categorical(logits=policy(obs), validate_args=False)
                action = choice.sample()
                log_prob_TN[t] = choice.log_prob(action)
                value_TN[t] = critic(obs).squeeze(1)
            obs_TN[t], action_TN[t] = obs, action
            next_obs, reward, terminated, truncated, info = envs.step(action.numpy())
            # A truncated episode would have gone on: its last observation's value stands for it.
            for env in (truncated & ~terminated).nonzero()[0]:
                with torch.no_grad():
                    last = critic(torch.from_numpy(info["final_obs"][env]))
                reward[env] += discount * last.item()
            reward_TN[t] = torch.from_numpy(reward)
            over_TN[t] = torch.from_numpy(terminated | truncated)
            obs = torch.from_numpy(next_obs)
        with torch.no_grad():
            next_value = critic(obs).squeeze(1)
        advantage_TN, running = torch.zeros(shape), torch.zeros(num_envs)
        for t in reversed(range(rollout_steps)):
            carried = discount * (1 - over_TN[t])
            delta = reward_TN[t] + carried * next_value - value_TN[t]
            advantage_TN[t] = running = delta + gae_lambda * carried * running
            next_value = value_TN[t]
        data = [
            column.flatten(0, 1)
            for column in (obs_TN, action_TN, log_prob_TN, advantage_TN, advantage_TN + value_TN)
        ]
        for _ in range(epochs):
            for index in torch.randperm(rollout_steps * num_envs).split(batch_size):
                obs_B, action_B, old_B, advantage_B, return_B = (x[index] for x in data)
                choice = Categorical(logits=policy(obs_B), validate_args=False)
                ratio_B = (choice.log_prob(action_B) - old_B).exp()
                advantage_B = (advantage_B - advantage_B.mean()) / (advantage_B.std() + 1e-8)
                clipped_B = ratio_B.clamp(1 - clip, 1 + clip) * advantage_B
                policy_loss = -torch.minimum(ratio_B * advantage_B, clipped_B).mean()
                value_loss = (critic(obs_B).squeeze(1) - return_B).square().mean()
                entropy = choice.entropy().mean()
                loss = policy_loss + value_weight * value_loss - entropy_weight * entropy
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, max_grad_norm)
                optimizer.step()


def evaluate(policy: nn.Module, *, episodes: int = 20, env_id: str = "CartPole-v1") -> float:
    """Mean return of greedy episodes."""
    env, total = gym.make(env_id), 0.0
    for episode in range(episodes):
        (obs, _), over = env.reset(seed=10_000 + episode), False
        while not over:
            with torch.no_grad():
                action = int(policy(torch.from_numpy(obs)).argmax())
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
    return total / episodes


if __name__ == "__main__":
    torch.set_num_threads(1)
    learnt = train(50_000, seed=int(sys.argv[1]) if sys.argv[1:] else 0)
    print(f"greedy return {evaluate(learnt):.1f}")
