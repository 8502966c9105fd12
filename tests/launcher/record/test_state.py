"""Whatever a module holds beside its weights is the same after a trip through a checkpoint."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import logging
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from antelope.launcher.record.checkpoint import read, write
from antelope.launcher.record.state import (
    attribute_state,
    load_attribute_state,
    load_object_state,
    object_state,
)
from antelope.replay import CheckpointError, Space, Spec


class Model(nn.Module):
    """Two weights, and whatever else a test gives it."""

    held: Any

    def __init__(self, held: Any = None):
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False)
        self.held = held


def resumed(saved: nn.Module, fresh: nn.Module, folder: Path) -> nn.Module:
    """`fresh` as a run that was killed and started again would find it."""
    folder.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=folder))
    state = {"agent": saved.state_dict(), "attributes": attribute_state(saved)}
    write(folder, copy.deepcopy(state))
    state = read(folder)
    fresh.load_state_dict(state["agent"])
    load_attribute_state(fresh, state["attributes"])
    return fresh


def held_after(made: Callable[[], Any], change: Callable[[Any], Any], folder: Path) -> Any:
    """What a model holds after a resume: `made()` when built, then `change(it)` in training.

    `change` returns the new value, or None when it changed the old one in place.
    """
    saved, fresh = Model(made()), Model(made())
    changed = change(saved.held)
    if changed is not None:
        saved.held = changed
    return resumed(saved, fresh, folder).held


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


class TestPlainValues:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(plain)
    def test_come_back_equal_and_of_the_same_type(self, tmp_path: Path, value: Any) -> None:
        # repr tells 1 from True and 1.0, and a tuple from a list, at every depth.
        assert repr(held_after(lambda: None, lambda _: value, tmp_path)) == repr(value)

    @pytest.mark.parametrize(
        "value",
        [
            *({1, 2}, frozenset({1}), b"\x00\xff", 2**100, float("inf"), 1e-320, -0.0),
            *(1 + 2j, np.float32(0.1)),  # A Python float would go on in another precision.
        ],
        ids=repr,
    )
    def test_of_rarer_types_too(self, tmp_path: Path, value: Any) -> None:
        restored = held_after(lambda: type(value)(), lambda _: value, tmp_path)
        assert repr(restored) == repr(value)

    def test_sit_anywhere_in_the_module(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model(0)
            model.layer.steps = 0  # type: ignore[assignment]
            return model

        saved = make()
        saved.held, saved.layer.steps = 5, 7  # type: ignore[assignment]
        fresh = resumed(saved, make(), tmp_path)
        assert (fresh.held, fresh.layer.steps) == (5, 7)

    def test_of_the_configuration_are_left_alone(self, tmp_path: Path) -> None:
        held = (
            Space((3,)),
            Spec(Space((3,)), Space((2,))),
            torch.device("cpu"),
            torch.float32,
            len,
        )
        saved, fresh = Model(), Model()
        names = ("space", "spec", "device", "dtype", "function")
        for model in (saved, fresh):
            for name, value in zip(names, held, strict=True):
                setattr(model, name, value)
        resumed(saved, fresh, tmp_path)
        assert all(getattr(fresh, n) is value for n, value in zip(names, held, strict=True))


class TestTensors:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.bool, torch.int8])
    def test_keep_type_and_values(self, tmp_path: Path, dtype: torch.dtype) -> None:
        value = torch.tensor([[0, 1, 3]]).to(dtype)
        restored = held_after(lambda: torch.zeros(1, 3, dtype=dtype), lambda _: value, tmp_path)
        assert restored.dtype == dtype
        assert torch.equal(restored, value)

    @pytest.mark.parametrize("shape", [(), (2,), (0, 3)])
    def test_arrays_keep_type_and_shape(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        value = np.full(shape, 7, np.int16)
        restored = held_after(lambda: np.zeros(shape, np.int16), lambda _: value, tmp_path)
        assert isinstance(restored, np.ndarray)
        assert (restored.shape, restored.dtype) == (shape, np.int16)
        assert (restored == 7).all()

    def test_held_twice_are_still_one(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model()
            model.a = model.b = torch.zeros(2)
            return model

        saved = make()
        saved.a += 3
        fresh = resumed(saved, make(), tmp_path)
        assert fresh.b.tolist() == [3, 3]
        assert fresh.a is fresh.b

    def test_two_names_of_one_that_part_in_training_are_two(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model()
            model.old = model.new = torch.zeros(2)
            return model

        saved = make()
        saved.new = saved.new + 3
        fresh = resumed(saved, make(), tmp_path)
        assert (fresh.old.tolist(), fresh.new.tolist()) == ([0, 0], [3, 3])

    def test_a_snapshot_that_began_as_the_weight_does_not_overwrite_it(
        self, tmp_path: Path
    ) -> None:
        def make() -> Model:
            model = Model()
            model.snapshot = model.layer.weight.detach()  # Shares the weight's memory.
            return model

        saved = make()
        saved.snapshot = saved.layer.weight.detach().clone()
        nn.init.constant_(saved.layer.weight, 5)
        fresh = resumed(saved, make(), tmp_path)
        assert fresh.layer.weight.tolist() == [[5, 5]]
        assert torch.equal(fresh.snapshot, saved.snapshot)

    @pytest.mark.parametrize("made_at_the_start", [True, False])
    def test_two_rows_of_one_memory_keep_their_own_values(
        self, tmp_path: Path, made_at_the_start: bool
    ) -> None:
        def make() -> Model:
            model = Model()
            model.mean, model.stddev = torch.zeros(2, 3) if made_at_the_start else (None, None)
            return model

        saved = make()
        saved.mean, saved.stddev = torch.tensor([[1.0, 1, 1], [2, 2, 2]])
        fresh = resumed(saved, make(), tmp_path)
        assert (fresh.mean.tolist(), fresh.stddev.tolist()) == ([1, 1, 1], [2, 2, 2])

    def test_a_view_of_a_weight_goes_on_following_it(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model()
            model.view = model.layer.weight.detach()
            return model

        fresh = resumed(make(), make(), tmp_path)
        nn.init.constant_(fresh.layer.weight, 5)
        assert fresh.view.tolist() == [[5, 5]]

    def test_that_an_optimiser_learns_are_still_the_ones_it_learns(self, tmp_path: Path) -> None:
        # The temperature of SAC: a leaf that is no nn.Parameter, with an optimiser of its own.
        def make() -> Model:
            model = Model()
            model.log_alpha = torch.zeros(1, requires_grad=True)
            model.optim = torch.optim.Adam([model.log_alpha], lr=0.1)
            return model

        def step(model: Model) -> None:
            model.optim.zero_grad()
            (model.log_alpha * 2).sum().backward()
            model.optim.step()

        saved, fresh = make(), make()
        step(saved)
        resumed(saved, fresh, tmp_path)
        for model in (saved, fresh):
            step(model)
        assert torch.equal(saved.log_alpha, fresh.log_alpha)

    def test_lists_of_weights_still_hold_the_weights(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model()
            model.trained = list(model.parameters())
            return model

        fresh = resumed(make(), make(), tmp_path)
        assert fresh.trained[0] is fresh.layer.weight

    def test_of_buffers_that_no_state_dict_holds_are_kept(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model()
            model.register_buffer("mask", torch.zeros(2), persistent=False)
            return model

        saved = make()
        saved.mask.add_(1)
        assert resumed(saved, make(), tmp_path).mask.tolist() == [1, 1]


class TestContainers:
    def test_deques_keep_their_limit(self, tmp_path: Path) -> None:
        held = held_after(
            lambda: collections.deque(maxlen=2), lambda d: d.extend([1, 2, 3]), tmp_path
        )
        assert held == collections.deque([2, 3], maxlen=2)
        assert held.maxlen == 2

    def test_deques_of_transitions(self, tmp_path: Path) -> None:
        item = (torch.ones(2), 3, 0.5, False)
        held = held_after(collections.deque, lambda d: d.append(item), tmp_path)
        assert isinstance(held[0], tuple)
        assert repr(held[0]) == repr(item)

    def test_counters_and_default_dicts_stay_what_they_are(self, tmp_path: Path) -> None:
        held = held_after(collections.Counter, lambda counter: counter.update("aab"), tmp_path)
        assert held == collections.Counter(a=2, b=1)
        assert isinstance(held, collections.Counter)

        def add(lists: collections.defaultdict[str, list[int]]) -> None:
            lists["x"].append(1)

        held = held_after(lambda: collections.defaultdict(list), add, tmp_path)
        assert held["new"] == []
        assert held["x"] == [1]

    def test_a_key_that_is_held_elsewhere_too_is_that_key(self, tmp_path: Path) -> None:
        one, two = (0, tuple([1])), (2, tuple([3]))  # noqa: C409 - built anew, not constants.
        held = held_after(
            dict, lambda d: d.update({"values": {one: 1, two: 2}, "at": one}), tmp_path
        )
        assert held == {"values": {(0, (1,)): 1, (2, (3,)): 2}, "at": (0, (1,))}

    def test_named_tuples_keep_their_names(self, tmp_path: Path) -> None:
        point = collections.namedtuple("point", "x y")
        held = held_after(lambda: point(0, 0), lambda _: point(1, 2), tmp_path)
        assert (held.x, held.y) == (1, 2)

    def test_are_refilled_so_that_others_see_it(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model([])
            model.alias = model.held
            return model

        saved = make()
        saved.held.append(1)
        fresh = resumed(saved, make(), tmp_path)
        assert fresh.alias == [1]
        assert fresh.alias is fresh.held

    def test_modules_in_a_list_keep_their_weights(self, tmp_path: Path) -> None:
        def fill(networks: list[nn.Module]) -> None:
            for number, network in enumerate(networks):
                nn.init.constant_(network.weight, number)  # type: ignore[arg-type]
                network.steps = number  # type: ignore[assignment]

        held = held_after(lambda: [nn.Linear(1, 1) for _ in range(2)], fill, tmp_path)
        assert [float(network.weight.detach()) for network in held] == [0, 1]
        assert [network.steps for network in held] == [0, 1]


class TestRandomStreams:
    @pytest.mark.parametrize(
        ("make", "draw"),
        [
            (torch.Generator, lambda g: torch.rand(3, generator=g).tolist()),
            (lambda: random.Random(1), lambda r: [r.gauss(0, 1), r.random(), r.getrandbits(9)]),
            (lambda: np.random.default_rng(1), lambda g: g.normal(size=3).tolist()),
            (
                lambda: np.random.Generator(np.random.MT19937(1)),
                lambda g: g.integers(9, size=3).tolist(),
            ),
            (lambda: np.random.RandomState(1), lambda r: r.normal(size=3).tolist()),
        ],
        ids=["torch", "random", "PCG64", "MT19937", "RandomState"],
    )
    def test_continue(
        self, tmp_path: Path, make: Callable[[], Any], draw: Callable[[Any], list[float]]
    ) -> None:
        saved, fresh = Model(make()), Model(make())
        draw(saved.held)
        resumed(saved, fresh, tmp_path)
        assert draw(saved.held) == draw(fresh.held)


class SelfTrained(nn.Module):
    """Owns its optimiser and its schedule, as a model whose `learn` returns None does."""

    def __init__(self, optim: Callable[..., torch.optim.Optimizer], **settings: float):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.optim = optim(self.parameters(), lr=0.1, **settings)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optim, 10)

    def step(self) -> None:
        self.optim.zero_grad()
        self.layer(torch.tensor([[1.0, -2.0]])).square().sum().backward()
        self.optim.step()
        self.scheduler.step()


@pytest.mark.parametrize(
    ("optim", "settings"),
    [
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.AdamW, {}),
        (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.RMSprop, {"centered": True}),
    ],
)
def test_optimisers_and_schedulers_continue_to_the_bit(
    tmp_path: Path, optim: Callable[..., torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    saved, fresh = SelfTrained(optim, **settings), SelfTrained(optim, **settings)
    for _ in range(3):
        saved.step()
    resumed(saved, fresh, tmp_path)
    for _ in range(3):
        saved.step()
        fresh.step()
    assert torch.equal(saved.layer.weight, fresh.layer.weight)
    assert saved.optim.param_groups[0]["lr"] == fresh.optim.param_groups[0]["lr"]


class Statistics:
    """A user's own object, with an object inside and a way back to its owner."""

    def __init__(self, owner: nn.Module):
        self.owner = owner
        self.mean, self.count = torch.zeros(2), 0
        self.inner: Any = collections.deque(maxlen=3)


@dataclasses.dataclass(frozen=True)
class Frozen:
    width: int = 3
    names: tuple[str, ...] = ("a", "b")


class Phase(enum.Enum):
    WARMUP = 1
    TRAIN = 2


class TestObjects:
    def test_of_the_user_continue(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model()
            model.held = Statistics(model)
            return model

        saved = make()
        saved.held.mean, saved.held.count = torch.tensor([1.0, 2.0]), 4
        saved.held.inner.extend([1, 2])
        fresh = resumed(saved, make(), tmp_path)
        assert fresh.held.owner is fresh
        assert (fresh.held.mean.tolist(), fresh.held.count) == ([1, 2], 4)
        assert fresh.held.inner == collections.deque([1, 2], maxlen=3)

    def test_with_state_dicts_continue_by_them(self, tmp_path: Path) -> None:
        class Schedule:
            value = 0

            def state_dict(self) -> dict[str, Any]:
                return {"doubled": self.value * 2}

            def load_state_dict(self, state: dict[str, Any]) -> None:
                self.value = state["doubled"] // 2

        def change(schedule: Schedule) -> None:
            schedule.value = 21

        assert held_after(Schedule, change, tmp_path).value == 21

    def test_that_are_frozen_stay(self, tmp_path: Path) -> None:
        assert held_after(Frozen, lambda _: None, tmp_path) == Frozen()

    def test_of_an_enumeration_are_its_members(self, tmp_path: Path) -> None:
        try:
            assert held_after(lambda: Phase.WARMUP, lambda _: Phase.TRAIN, tmp_path) is Phase.TRAIN
            assert Phase.WARMUP.value == 1
        finally:
            Phase.WARMUP._value_, Phase.WARMUP._name_ = 1, "WARMUP"

    def test_that_are_no_data_do_not_stop_a_checkpoint(self, tmp_path: Path) -> None:
        logger = logging.getLogger("antelope.test.attributes")
        logging.getLogger("antelope.test.attributes.below.it")
        assert held_after(lambda: logger, lambda _: None, tmp_path) is logger

    def test_that_are_no_data_may_be_held_twice(self, tmp_path: Path) -> None:
        class Tool:
            """Has no fields: nothing to save."""

        for tool in (logging.getLogger("antelope.test"), Tool(), nn.functional.relu):
            held = held_after(lambda tool=tool: [tool, tool], lambda _: None, tmp_path)
            assert held == [tool, tool]

    def test_beside_a_dict_that_cannot_be_saved_are_kept(self, tmp_path: Path) -> None:
        def make() -> Model:
            model = Model()
            key = (1, (2,))
            model.table, model.at = {key: 1, len: 2}, key  # A function is no key of a checkpoint.
            return model

        assert resumed(make(), make(), tmp_path).at == (1, (2,))

    def test_that_are_not_made_at_the_start_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"state of `held`.*Create it in __init__"):
            held_after(lambda: None, lambda _: torch.Generator(), tmp_path)

    def test_that_refer_to_themselves_end(self, tmp_path: Path) -> None:
        def make() -> dict[str, Any]:
            held: dict[str, Any] = {"steps": 0}
            held["self"] = held
            return held

        def change(held: dict[str, Any]) -> None:
            held["steps"] = 3

        held = held_after(make, change, tmp_path)
        assert held["steps"] == 3
        assert held["self"] is held


def test_frozen_weights_and_parts_in_evaluation_mode_stay_so(tmp_path: Path) -> None:
    def make() -> Model:
        model = Model()
        model.head = nn.Linear(1, 1)
        model.head.bias.requires_grad_(False)
        return model

    saved = make()
    saved.layer.weight.requires_grad_(False)  # Frozen and thawed in training.
    saved.head.bias.requires_grad_(True)
    saved.layer.eval()
    fresh = resumed(saved, make(), tmp_path)
    assert not fresh.layer.weight.requires_grad
    assert fresh.head.bias.requires_grad
    assert (fresh.training, fresh.layer.training, fresh.head.training) == (True, False, True)


def test_registered_submodules_are_left_to_the_state_dict(tmp_path: Path) -> None:
    model = Model()
    model.alias = [model.layer]  # type: ignore[assignment]
    state = attribute_state(model)
    assert not any(isinstance(value, Tensor) for value in state.values())
    assert resumed(model, model, tmp_path).alias[0] is model.layer


class Grows:
    """Something that has tensors only once it has learnt."""


def test_a_tensor_made_while_learning_is_put_back_where_it_was() -> None:
    learnt = Grows()
    learnt.weights = {"a": torch.arange(3.0)}  # type: ignore[attr-defined]
    state = object_state(learnt)
    (_, described) = state["$object"]["weights"]["$items"][0]
    assert "device" not in described  # Of the CPU nothing is said.
    described["device"] = "meta"
    fresh = Grows()
    load_object_state(fresh, state)
    assert fresh.weights["a"].device.type == "meta"  # type: ignore[attr-defined]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_tensor_from_a_device_that_is_not_here_is_put_on_the_cpu() -> None:
    learnt = Grows()
    learnt.weights = torch.arange(3.0)  # type: ignore[attr-defined]
    state = object_state(learnt)
    state["$object"]["weights"]["device"] = "cuda"
    fresh = Grows()
    load_object_state(fresh, state)
    assert fresh.weights.tolist() == [0, 1, 2]  # type: ignore[attr-defined]
