"""What crosses to a device in one copy, or comes back, is what it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from antelope.replay.devices import Move, available, destination, has_float64, is_same, moving
from antelope.replay.transfer import Parcel, as_array, download, upload
from antelope.replay.tree import leaves, map_tree

CPU = torch.device("cpu")
TYPES = [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16]
TYPES += [torch.bfloat16, torch.complex128]


def tensor(stream: np.random.Generator, dtype: torch.dtype) -> Tensor:
    """Of any shape, empty ones and single numbers too, and not always contiguous."""
    shape = tuple(stream.integers(0, 4, stream.integers(0, 4)).tolist())
    x = torch.from_numpy(stream.integers(0, 200, shape)).to(dtype)
    if x.dim() > 1 and stream.random() < 0.5:
        x = x.transpose(0, 1)
    if x.dim() and len(x) > 1 and stream.random() < 0.5:
        x = x[1:]
    return x


def tree(stream: np.random.Generator) -> dict[str, Any]:
    parts: dict[str, Any] = {
        str(i): tensor(stream, TYPES[stream.integers(len(TYPES))]) for i in range(6)
    }
    return {**parts, "inner": {"deep": {"x": tensor(stream, torch.float32)}}, "number": 7}


def check_equal(found: Any, expected: Any) -> None:
    pairs = list(zip(leaves(found), leaves(expected), strict=True))
    for a, b in pairs:
        if not isinstance(b, Tensor):
            assert a == b
            continue
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert torch.equal(a, b)


@given(st.integers(0, 10**6), st.sampled_from([0, 64, 10**4]))
def test_a_parcel_brings_what_was_put_in(seed: int, room: int) -> None:
    stream = np.random.default_rng(seed)
    parcel = Parcel(CPU, room)
    fields = tree(stream)
    # Some rows are gathered straight into it, as views of a record too.
    rows = parcel.empty((5, 3), np.dtype(np.float32))
    rows[:] = stream.normal(size=(5, 3))
    record = np.dtype([("wide", np.float64), ("flag", np.bool_)], align=True)
    records = parcel.empty((4,), record)
    records["wide"], records["flag"] = stream.normal(size=4), stream.integers(0, 2, 4)
    fields["rows"] = torch.from_numpy(rows)
    fields["some"] = fields["rows"][1:3]
    fields["wide"], fields["flag"] = (torch.from_numpy(records[name]) for name in record.names)
    expected = map_tree(lambda x: x.clone() if isinstance(x, Tensor) else x, fields)
    check_equal(parcel.send(fields), expected)


def test_what_was_gathered_into_a_parcel_is_not_copied_again() -> None:
    parcel = Parcel(CPU, 1024)
    rows = torch.from_numpy(parcel.empty((8,), np.dtype(np.float32)))
    before = parcel.wanted
    parcel.send({"rows": rows})
    assert parcel.wanted == before == 32
    other = torch.zeros(8)
    parcel.send({"rows": rows, "other": other})
    assert parcel.wanted == 64


def test_a_parcel_says_how_large_it_should_have_been() -> None:
    small = Parcel(CPU, 0)
    small.send({"x": torch.zeros(10), "y": torch.zeros(3, dtype=torch.int64)})
    assert small.wanted == 48 + 32  # In steps of 16 bytes.
    large = Parcel(CPU, small.wanted)
    sent = large.send({"x": torch.zeros(10), "y": torch.zeros(3, dtype=torch.int64)})
    memories = {x.untyped_storage().data_ptr() for x in sent.values()}
    assert len(memories) == 1


@given(st.integers(0, 10**6))
def test_a_tree_comes_back_as_arrays(seed: int) -> None:
    fields = tree(np.random.default_rng(seed))
    arrays = download(fields)
    for array, x in zip(leaves(arrays), leaves(fields), strict=True):
        if isinstance(x, Tensor):
            wanted = x.float() if x.dtype is torch.bfloat16 else x
            np.testing.assert_array_equal(array, wanted.numpy())


def test_arrays_are_made_of_anything() -> None:
    assert as_array([1, 2]).tolist() == [1, 2]
    assert as_array(torch.ones(1, requires_grad=True)).tolist() == [1]
    assert as_array(torch.ones(1, dtype=torch.bfloat16)).dtype == np.float32


def test_nothing_is_sent_where_everything_is() -> None:
    fields = {"x": torch.zeros(1), "y": 3}
    assert upload(fields, CPU) is fields


def test_devices_are_compared_by_what_they_are() -> None:
    assert is_same(torch.device("cuda"), torch.device("cuda:0"))
    assert not is_same(torch.device("cuda:1"), torch.device("cuda:0"))
    assert not is_same(torch.device("cpu"), torch.device("cuda"))
    assert has_float64("cpu")
    assert available("cuda:99") == available("no-such-device:0") == CPU


@pytest.mark.parametrize(
    ("saved", "now", "device", "goes_to"),
    [
        ("meta", "cpu", "meta", "cpu"),  # What was on the run's device goes to the run's device,
        ("cpu", "meta", "cpu", "meta"),
        ("meta", "meta", "cpu", "cpu"),  # and what was not stays where it was.
        ("meta", "cpu", "cpu", "cpu"),
    ],
)
def test_tensors_follow_the_run_to_its_device(
    saved: str, now: str, device: str, goes_to: str
) -> None:
    move = Move(torch.device(saved), torch.device(now))
    assert move.destination(torch.device(device)) == torch.device(goes_to)
    with moving(torch.device(saved), torch.device(now)):
        assert destination(device) == torch.device(goes_to)
    assert destination("cpu") == CPU
