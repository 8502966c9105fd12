"""The composed examples: their sizes, what they share, and what a recurrent one keeps in a resumed run."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from antelope.agents import PPO
from antelope.replay import Space

ROOT = Path(__file__).resolve().parents[2]
OBS = {"screen": Space((3, 64, 64), torch.uint8, low=0, high=255), "inventory": Space((16,))}
ACTION = {
    "move": Space((4,), torch.int64, discrete=True),
    "use": Space((16,), torch.int64, discrete=True, binary=True),
}
SHAPES: dict[str, Any] = {name: space.shape for name, space in OBS.items()}
LOGITS = {"move": (4,), "use": (16,)}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports an example without running it."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def batch(n: int, steps: int) -> dict[str, torch.Tensor]:
    return {"screen": torch.rand(n, steps, 3, 64, 64), "inventory": torch.rand(n, steps, 16)}


def test_the_trunks_have_the_sizes_that_are_told(example: Any) -> None:
    own = example("composed_dict")
    policy, critic = own.Trunk(SHAPES, LOGITS), own.Critic(SHAPES)
    PPO(OBS, ACTION, policy=policy, critic=critic)  # Lazy layers take shape.
    assert (count(policy), count(critic)) == (128_988, 128_361)
    shared = example("composed_shared")
    policy, critic = shared.Policy(SHAPES, LOGITS), shared.Critic({**SHAPES, "embedding": (32,)})
    PPO(OBS, ACTION, policy=policy, critic=critic)
    assert (count(policy), count(critic)) == (128_988, 44_609)


def test_the_pairs_for_cartpole_have_the_sizes_that_are_told(example: Any) -> None:
    blocks, plain = example("composed_cartpole"), example("composed_plain")
    assert count(blocks.Policy({"obs": (4,)}, {"action": (2,)})) == count(plain.Actor()) == 690
    assert count(blocks.Critic({"obs": (4,)})) == count(plain.Critic()) == 657


def test_the_shared_embedding_is_computed_once_and_both_losses_reach_it(example: Any) -> None:
    shared = example("composed_shared")
    policy = shared.Policy(SHAPES, LOGITS)
    critic = shared.Critic({**SHAPES, "embedding": (32,)})
    agent = PPO(OBS, ACTION, policy=policy, critic=critic)
    assert count(agent) == 128_988 + 44_609
    runs: list[int] = []
    policy.screen.register_forward_hook(lambda *_: runs.append(1))
    chosen, value, _ = agent.both(batch(2, 3))
    assert len(runs) == 1
    weight = policy.screen[0].weight
    for loss in (chosen.log_prob(chosen.sample()).sum(), value.sum()):
        weight.grad = None
        loss.backward(retain_graph=True)
        assert bool(weight.grad.abs().sum() > 0)


def test_a_detached_embedding_is_reached_by_the_policys_loss_alone(example: Any) -> None:
    shared = example("composed_shared")

    class Detached(shared.Policy):  # type: ignore[name-defined, misc]
        def forward(self, obs: Any, state: Any = None) -> Any:
            heads, state = super().forward(obs, state)
            return {**heads, "embedding": heads["embedding"].detach()}, state

    policy = Detached(SHAPES, LOGITS)
    agent = PPO(OBS, ACTION, policy=policy, critic=shared.Critic({**SHAPES, "embedding": (32,)}))
    chosen, value, _ = agent.both(batch(2, 3))
    weight = policy.screen[0].weight
    value.sum().backward(retain_graph=True)
    assert weight.grad is None
    chosen.log_prob(chosen.sample()).sum().backward()
    assert bool(weight.grad.abs().sum() > 0)


MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, obs_shapes, action_logits_shapes):
        super().__init__()
        ((self.seen, shape),) = obs_shapes.items()
        self.memory = nn.GRU(*shape, 8, batch_first=True)
        heads = {name: nn.Linear(8, *shape) for name, shape in action_logits_shapes.items()}
        self.heads = nn.ModuleDict(heads)

    def forward(self, obs, state=None):
        features, state = self.memory(obs[self.seen], state)
        return {name: head(features) for name, head in self.heads.items()}, state


class Critic(Net):
    def __init__(self, obs_shapes):
        super().__init__(obs_shapes, {"value": (1,)})
"""


def test_a_recurrent_pair_continues_to_the_bit_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(MODEL)
    words = ["env=Recall", "env.delay=3", "agent=PPO", "policy=nets.Net", "critic=nets.Critic"]
    words += ["model.steps=16", "seed_steps=0", "train_steps=3000", "save_every=150", "num_envs=2"]
    words += ["plot=false", "progress=false", "eval_every=3000", "eval_episodes=1", "device=cpu"]

    def start(*more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "run.py"), *words, *more]
        return subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert start("path=whole").wait() == 0
    run = start("path=cut")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cut/checkpoints").glob("0*")):
        assert run.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert start("path=cut", "resume=true").wait() == 0

    def weights(name: str) -> dict[str, torch.Tensor]:
        newest = max((tmp_path / name / "checkpoints").glob("[0-9]*"))
        found: dict[str, torch.Tensor] = {}
        for file in sorted(newest.glob("*.safetensors")):
            found |= {f"{file.name}:{key}": x for key, x in load_file(file).items()}
        return found

    whole, cut = weights("whole"), weights("cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(x, cut[name]) for name, x in whole.items())
