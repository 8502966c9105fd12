"""A picture of any module, which is afterwards exactly what it was before."""

from __future__ import annotations

import copy
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antelope.launcher.pictures.model.render import render_model, trace


class Everything(nn.Module):
    """Changes whatever a forward can change."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.lazy = nn.LazyLinear(2)
        self.register_buffer("count", torch.zeros(()))
        self.calls: list[int] = []
        self.generator = torch.Generator()
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.calls.append(len(self.calls))
        noise = torch.rand(1) + np.random.rand() + random.random()
        noise = noise + torch.rand(1, generator=self.generator)
        with torch.no_grad():
            self.norm.weight.mul_(0.5)
        x.add_(1)
        self.last = self.lazy(self.drop(self.norm(x))) + noise
        return self.last


def snapshot(module: nn.Module) -> dict[str, Any]:
    """All that a user could see of a module."""
    lazy = torch.nn.parameter.is_lazy
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_forward_hooks_with_kwargs",
    )
    return {
        "tensors": {
            key: (id(t), None if lazy(t) else t.detach().clone(), t.requires_grad, str(t.device))
            for key, t in tensors.items()
        },
        "grads": {key: p.grad for key, p in module.named_parameters()},
        "modes": {path: part.training for path, part in module.named_modules()},
        "classes": {path: type(part) for path, part in module.named_modules()},
        "hooks": {
            path: [dict(getattr(part, name)) for name in hooks]
            for path, part in module.named_modules()
        },
        "state": [sorted(vars(part)) for part in module.modules()],
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return bool(a == b)


def random_numbers() -> tuple[float, float, float]:
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_the_module_and_its_inputs_are_as_before(tmp_path: Path) -> None:
    module = Everything()
    module.norm.eval()  # Other than its parent.
    module.norm.bias.requires_grad_(False)
    module.norm.weight.grad = torch.ones(4)
    obs = torch.randn(2, 4)
    before, given = snapshot(module), obs.clone()
    generator = module.generator.get_state()
    assert len(render_model(module, (obs,), tmp_path)) == 3
    assert same(snapshot(module), before)
    assert torch.equal(obs, given)
    assert torch.equal(module.generator.get_state(), generator)
    assert (module.calls, module.last) == ([], None)
    assert isinstance(module.lazy, nn.LazyLinear)
    module(obs)  # Still takes its shape at the first call that counts.
    assert module.lazy.weight.shape == (2, 4)


def test_random_streams_go_on_from_where_they_were(tmp_path: Path) -> None:
    module, obs = Everything(), torch.randn(2, 4)
    for stream in (torch.manual_seed, np.random.seed, random.seed):
        stream(3)
    expected = random_numbers()
    for stream in (torch.manual_seed, np.random.seed, random.seed):
        stream(3)
    render_model(module, (obs,), tmp_path)
    assert random_numbers() == expected


def test_hooks_of_the_user_stay_and_ours_do_not(tmp_path: Path) -> None:
    module = nn.Linear(4, 2)
    seen: list[int] = []
    module.register_forward_hook(lambda *_: seen.append(1))
    render_model(module, (torch.ones(1, 4),), tmp_path)
    assert len(module._forward_hooks) == 1
    assert not module._forward_pre_hooks
    assert not torch.overrides._get_current_function_mode_stack()


def test_what_cannot_be_copied_is_shared(tmp_path: Path) -> None:
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()
            self.layer = nn.Linear(4, 2)
            self.seen: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            with self.lock:
                self.seen.append(x)
                return self.layer(x)

    module = Locked()
    assert render_model(module, (torch.ones(2, 4),), tmp_path)
    assert module.seen == []


def test_a_tensor_with_history_in_the_module_or_the_input_is_no_obstacle(tmp_path: Path) -> None:
    module = nn.Linear(4, 2)
    module.last = module(torch.ones(1, 4))
    obs = torch.ones(2, 4, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(module)
    assert len(render_model(module, (obs,), tmp_path)) == 3
    assert module.last.grad_fn is not None


@pytest.mark.parametrize("error", [ValueError("bad\nthing"), RuntimeError(), AssertionError("no")])
def test_an_error_is_one_line_and_never_raised(tmp_path: Path, error: Exception) -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(1)
            raise error

    said: list[str] = []
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert render_model(Raises(), (torch.ones(1),), tmp_path, report=said.append) == []
    (line,) = said
    assert line.startswith(f"No picture of Raises: {type(error).__name__}")
    assert "\n" not in line
    assert torch.equal(torch.rand(1), expected)
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    module, obs = nn.Linear(2, 1), (torch.ones(1, 2),)
    assert render_model(module, obs, tmp_path / "file" / "plots", report=said.append) == []
    assert "NotADirectoryError" in said[0]


def test_the_forward_is_in_eval_mode_and_without_gradient(tmp_path: Path) -> None:
    seen = []

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((self.training, self.drop.training, torch.is_grad_enabled()))
            return self.drop(x)

    assert render_model(Looks(), (torch.ones(2),), tmp_path)
    assert seen == [(False, False, False)]


def test_the_same_module_gives_the_same_bytes(tmp_path: Path) -> None:
    module, obs = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (torch.ones(2, 4),)
    for folder in ("a", "b"):
        render_model(module, obs, tmp_path / folder)
    for name in ("model.txt", "model.svg", "model.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_inputs_and_outputs_have_the_keys_of_their_dicts() -> None:
    class Heads(nn.Module):
        def forward(self, obs: dict[str, Tensor], state: Any = None) -> Any:
            out = {"move": obs["screen"] * 1, "use": {"left": obs["tools"] * 1}}
            return out, (obs["screen"] + 1,)

    def keys(kind: str, *inputs: Any) -> list[str]:
        return [n.title for n in trace(Heads(), inputs).nodes if n.kind == kind]

    obs = {"screen": torch.ones(2, 3), "tools": torch.ones(2, 1)}
    assert keys("input", obs) == ["screen", "tools"]
    assert keys("input", obs, (torch.ones(1),)) == ["obs.screen", "obs.tools", "state[0]"]
    assert keys("output", obs) == ["move", "left", "output[1][0]"]
