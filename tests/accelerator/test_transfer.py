"""A tree of tensors crosses to a device in one copy, and comes back in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from antelope.replay.transfer import Parcel, download, upload

from . import pretend as device


def crossings() -> dict[str, Any]:
    """How often things cross, and whether they are still what they were."""
    tree = {
        "obs": {"a": torch.randn(4, 3), "b": torch.arange(8).view(4, 2)},
        "reward": torch.randn(4).double(),
        "flag": torch.tensor([True, False, True, True]),
        "half": torch.randn(3).bfloat16(),
    }
    with device.phase("there"):
        there = upload(tree, torch.device("pretend"))
    with device.phase("back"):
        back = download(there)
    with device.phase("apart"):  # No room for anything: it goes in a second one.
        apart = Parcel(torch.device("pretend"), 0).send(tree)
    flat = [tree["obs"]["a"], tree["obs"]["b"], tree["reward"], tree["flag"], tree["half"].float()]  # type: ignore[index,union-attr]
    arrays = [back["obs"]["a"], back["obs"]["b"], back["reward"], back["flag"], back["half"]]
    return {
        "events": dict(device.EVENTS),
        "equal": all(np.array_equal(x.numpy(), a) for x, a in zip(flat, arrays, strict=True)),
        "apart": torch.equal(apart["reward"].cpu(), tree["reward"]),
        "places": {str(there["obs"]["a"].device), str(there["reward"].device)},
        "types": [there["obs"]["b"].dtype, there["reward"].dtype, there["half"].dtype],
    }


def without_float64() -> torch.dtype:
    import antelope_pretend

    antelope_pretend.give_float64(False)
    wide = torch.ones(3, dtype=torch.float64)
    sent = upload({"x": wide, "y": torch.ones(2)}, torch.device("pretend"))
    assert sent["x"].tolist() == [1, 1, 1]
    dtype: torch.dtype = sent["x"].dtype
    return dtype


def test_a_tree_crosses_in_one_copy(pretend: Any) -> None:
    found = pretend.run(crossings)
    assert found["events"][("there", "upload_async")] == 1
    assert found["events"][("back", "download")] == 1
    assert found["events"][("apart", "upload_async")] <= 2
    assert not {event for _, event in found["events"]} & {"wait", "upload"}
    assert found["equal"]
    assert found["apart"]
    assert found["places"] == {"pretend:0"}
    assert found["types"] == [torch.int64, torch.float64, torch.bfloat16]


def test_float64_becomes_float32_where_there_is_none(pretend_without_float64: Any) -> None:
    assert pretend_without_float64.run(without_float64) == torch.float32
