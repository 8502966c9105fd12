"""Where a data set's rows lie, and whose random streams an evaluation leaves alone."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from antelope import ConfigError
from antelope.replay import Table
from antelope.replay.randomness import forked_randomness, kept_randomness

from .runs import MLP, Clock, Counter, Noisy, _without_float64, start


class ShiftedBy(MLP):
    """Keeps a tensor that is no buffer."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.shift = torch.ones(out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs) + self.shift


class LossOfTwoDevices(MLP):
    """Makes a tensor on the CPU, whatever the batch is on."""

    def learn(self, replay: Any, log: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label, weight=torch.ones(10))


class Counting(nn.Module):
    """Recurrent; knows steps only, and begins on the CPU."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.cell = nn.GRUCell(in_features, 8)
        self.head = nn.Linear(8, out_features)

    def forward(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = self.cell(obs, torch.zeros(len(obs), 8) if state is None else state)
        return self.head(state), state

    def learn(self, replay: Any, log: Any) -> None:
        next(replay)


DIGITS = {"model": Noisy, "dataset": "Digits", "train_steps": 12, "progress": True}


def learnt_with(data: str, folder: Path, *, free: float = 1e9) -> dict[str, Any]:
    """A run with so much of the device's memory free."""
    module: Any = torch.get_device_module("pretend")
    with (
        mock.patch.object(module, "free", free),
        redirect_stderr(io.StringIO()) as said,
        redirect_stdout(said),
    ):
        run = start("pretend", folder, data=data, **DIGITS)
    return {
        "table": run.replay.storage.device.type,
        "batch": next(run.replay).obs.device.type,
        "said": " ".join(said.getvalue().split()),
        "metrics": run.metrics,
    }


def clocked(device: str, folder: Path) -> dict[str, float]:
    """How many seconds are told apart in what is learnt from, by the observations' type."""
    options = {"env": None, "normalize_obs": True, "train_steps": 60, "seed_steps": 10}
    found = {}
    for env, storage in ((Clock, "ram"), (Counter, "ram"), (Counter, "gpu")):
        settings = {**options, "env": env, "model": "DQN", "replay.storage": storage}
        run = start(device, folder / f"{env.__name__} {storage}", **settings)
        obs = run.replay.sample(500).obs
        assert (obs.dtype, obs.device.type) == (torch.float32, torch.device(device).type)
        found[f"{env.__name__} {storage}"] = len(obs.cpu().unique())
    return found


def clocked_without_float64(folder: Path) -> dict[str, float]:
    _without_float64()
    return clocked("pretend", folder)


def learnt_from_its_own_tensors(folder: Path) -> list[tuple[str, float]]:
    """Where the rows are, and a loss, of runs whose data was brought on the device, half of it, or none."""
    draws = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(60, 5, generator=draws), torch.arange(60) % 3
    moved = inputs.to("pretend"), labels.to("pretend")
    found = []
    for number, data in enumerate(
        [(inputs, labels), moved, (inputs, moved[1]), TensorDataset(*moved)]
    ):
        run = start(
            "pretend", folder / str(number), model=MLP, dataset=data, epochs=2, data="device"
        )
        found.append((run.replay.storage.device.type, run.metrics["loss"]))
    run = start("cpu", folder / "cpu", model=MLP, dataset=moved, epochs=2)
    return [*found, (run.replay.storage.device.type, run.metrics["loss"])]


def refused_on_the_device(folder: Path) -> str:
    """What is said where rows are wanted on a device that has no room for them."""
    with mock.patch.object(Table, "to", side_effect=torch.OutOfMemoryError("out of memory")):
        try:
            start("pretend", folder, **DIGITS, data="device")
        except ConfigError as error:
            return str(error)
    raise AssertionError("nothing was said")


def no_room_after_all(folder: Path) -> dict[str, Any]:
    """A run whose rows did not fit, though there seemed to be room."""
    to = Table.to

    def full(self: Table, device: torch.device) -> Table:
        if device.type != "cpu":
            raise torch.OutOfMemoryError("pretend out of memory")
        return to(self, device)

    with mock.patch.object(Table, "to", full):
        return learnt_with("auto", folder)


def left_alone() -> dict[str, bool]:
    """Whether streams go on as if nothing had been drawn."""
    places = ("cpu", "pretend:0", "pretend:1")
    found = {}
    for name, block in (("forked", forked_randomness(7)), ("kept", kept_randomness())):
        torch.manual_seed(3)
        expected = [torch.rand(2, device=place).cpu() for place in places]
        torch.manual_seed(3)
        with block:
            for place in places:
                torch.rand(5, device=place)
        drawn = [torch.rand(2, device=place).cpu() for place in places]
        found[name] = all(torch.equal(a, b) for a, b in zip(expected, drawn, strict=True))
    return found


def test_clocks_keep_their_digits(pretend: Any, tmp_path: Path) -> None:
    found = pretend.run(clocked, "pretend", tmp_path)
    assert min(found.values()) > 50, found


def test_clocks_keep_their_digits_without_float64(
    pretend_without_float64: Any, tmp_path: Path
) -> None:
    found = pretend_without_float64.run(clocked_without_float64, tmp_path)
    assert min(found.values()) > 50, found


def test_rows_are_on_the_device_where_they_fit(pretend: Any, tmp_path: Path) -> None:
    found = pretend.run(learnt_with, "auto", tmp_path)
    assert (found["table"], found["batch"]) == ("pretend", "pretend")
    assert "kB on pretend" in found["said"]


def test_rows_stay_in_ram_where_they_do_not_fit(pretend: Any, tmp_path: Path) -> None:
    fits = pretend.run(learnt_with, "auto", tmp_path / "fits")
    found = pretend.run(learnt_with, "auto", tmp_path / "not", free=1e5)
    assert (found["table"], found["batch"]) == ("cpu", "pretend")
    assert "in RAM, since pretend:0 has 100 kB free" in found["said"]
    assert found["metrics"] == fits["metrics"]  # The same batches, from elsewhere.


def test_rows_stay_in_ram_where_they_are_wanted(pretend: Any, tmp_path: Path) -> None:
    assert pretend.run(learnt_with, "ram", tmp_path)["table"] == "cpu"


def test_rows_go_to_the_device_where_they_are_wanted(pretend: Any, tmp_path: Path) -> None:
    assert pretend.run(learnt_with, "device", tmp_path, free=1e5)["table"] == "pretend"


def test_a_device_without_room_says_so(pretend: Any, tmp_path: Path) -> None:
    assert "data=device: " in pretend.run(refused_on_the_device, tmp_path)
    found = pretend.run(no_room_after_all, tmp_path)
    assert found["table"] == "cpu"
    assert "ran out of memory" in found["said"]


def test_no_random_stream_is_moved_by_an_evaluation(pretend: Any) -> None:
    assert pretend.run(left_alone) == {"forked": True, "kept": True}


def left_alone_by_runs(device: str, folder: Path) -> dict[str, bool]:
    """Whether the caller's streams, the device's too, go on as if there had been no run."""

    def seeded() -> list[torch.Tensor]:
        torch.manual_seed(3)
        return [torch.rand(2, device=place).cpu() for place in ("cpu", device)]

    seeded()
    expected = [torch.rand(2, device=place).cpu() for place in ("cpu", device)]
    found = {}
    for on in ("cpu", device):
        seeded()
        start(on, folder / on.replace(":", ""), model=MLP, train_steps=2)
        drawn = [torch.rand(2, device=place).cpu() for place in ("cpu", device)]
        found[on] = all(torch.equal(a, b) for a, b in zip(expected, drawn, strict=True))
    return found


def test_no_random_stream_of_the_caller_is_moved_by_a_run(machine: Any, tmp_path: Path) -> None:
    found = machine.run(left_alone_by_runs, machine.name, tmp_path)
    assert found == {"cpu": True, machine.name: True}


def test_only_rows_in_memory_can_be_wanted_on_the_device(pretend: Any, tmp_path: Path) -> None:
    assert "decoded as they are read" in pretend.run(lazy_on_the_device, tmp_path)


def lazy_on_the_device(folder: Path) -> str:
    from .runs import Changing

    with pytest.raises(ConfigError) as raised:
        start("pretend", folder, model=MLP, dataset=Changing, train_steps=2, data="device")
    return str(raised.value)


@pytest.mark.parametrize(
    ("model", "world"),
    [
        (ShiftedBy, {"dataset": "Digits"}),
        (LossOfTwoDevices, {"dataset": "Digits"}),
        (Counting, {"env": "CartPole-v1"}),
    ],
)
def test_tensors_of_two_devices_are_said_with_what_to_do(
    model: Any, world: dict[str, Any], pretend: Any, tmp_path: Path
) -> None:
    said = pretend.run(refused, tmp_path, model, world)
    assert "to be on the same device" in said
    assert "Create a tensor where the others are" in said
    assert model.__name__ in said


def refused(folder: Path, model: Any, world: dict[str, Any]) -> str:
    with pytest.raises((ConfigError, RuntimeError)) as raised:
        start("pretend", folder, model=model, train_steps=20, **world)
    return " ".join([str(raised.value), *getattr(raised.value, "__notes__", [])])


def test_data_may_be_on_a_device_already(pretend: Any, tmp_path: Path) -> None:
    *there, (place, loss) = pretend.run(learnt_from_its_own_tensors, tmp_path)
    assert [kind for kind, _ in there] == ["pretend"] * 4
    assert len({loss for _, loss in there}) == 1
    assert place == "cpu"
    assert loss == pytest.approx(there[0][1], rel=1e-4)
