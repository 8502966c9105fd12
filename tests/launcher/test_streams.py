"""storage=stream: rows are read at each use, in an order that a resumed run continues exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from antelope import DataError, Run, ml
from antelope.replay import LazyColumn
from antelope.replay.samplers import Epochs
from antelope.replay.windows import Windows

PIXELS = np.random.default_rng(0).integers(0, 255, (120, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(120) % 3


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTELOPE_DATA", str(tmp_path / "data"))


class Stream(IterableDataset[Any]):
    """Items one after the other; counts its passes."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end, self.passes = start, end, 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        self.passes += 1
        for i in range(self.start, self.end):
            yield PIXELS[i].astype(np.float32), int(LABELS[i])


class Items(Dataset[Any]):
    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return PIXELS[i].astype(np.float32), int(LABELS[i])


def folder() -> str:
    for i, picture in enumerate(PIXELS):
        path = Path("pictures", str(LABELS[i]), f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(path)
    return "pictures"


def streams() -> dict[str, Any]:
    return {"dataset": Stream(0, 100), "test_dataset": Stream(100, 120)}


SOURCES: dict[str, Callable[[], dict[str, Any]]] = {
    "pictures": lambda: {"dataset": folder()},
    "items": lambda: {"dataset": Items()},
    "an IterableDataset": streams,
    "its tasks": lambda: {**streams(), "tasks": 3, "strategy": "er"},
}


class Stop:
    """Ends the run in the middle of a pass."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, run: Any) -> None:
        if run.step == self.step:
            raise RuntimeError("stopped")


def run(path: str, storage: str = "stream", **settings: Any) -> Run:
    usual: dict[str, Any] = {"epochs": 3, "batch_size": 16, "save_every": 5}
    if storage == "stream":
        usual["shuffle_buffer"] = 30
    return ml(path=path, storage=storage, progress=False, plot=False, **{**usual, **settings})


@pytest.mark.parametrize("source", SOURCES)
def test_a_stream_continues_exactly(source: str) -> None:
    whole = run("whole", **SOURCES[source]())
    assert isinstance(whole.replay.storage.columns["obs"], LazyColumn)  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="stopped"):
        run("parts", callbacks=Stop(9), **SOURCES[source]())
    parts = run("parts", resume=True, **SOURCES[source]())
    for key, value in whole.agent.state_dict().items():
        assert torch.equal(value, parts.agent.state_dict()[key]), key
    assert (whole.path / "eval.csv").read_bytes() == (parts.path / "eval.csv").read_bytes()


def test_a_pass_over_a_stream_reads_it_once() -> None:
    passes = []
    for epochs in (3, 8):
        settings = streams()
        run(f"run{epochs}", **{**settings, "epochs": epochs})
        passes.append(settings["dataset"].passes)
    assert passes[1] - passes[0] == 5


def test_a_stream_is_written_to_a_file_once() -> None:
    settings = streams()
    found = run("run", storage="mmap", **settings)
    rows = found.replay.storage.columns["obs"][:]  # type: ignore[union-attr,index]
    assert torch.equal(rows, torch.from_numpy(PIXELS[:100]).float())
    before = settings["dataset"].passes
    found.evaluate()
    assert settings["dataset"].passes == before


def test_a_stream_that_changes_is_an_error_that_names_the_item() -> None:
    class Shuffled(Stream):
        def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
            self.passes += 1
            order = np.random.default_rng(self.passes).permutation(self.end)
            for i in order:
                yield PIXELS[i].astype(np.float32), int(LABELS[i])

    with pytest.raises(DataError, match="differs from one pass to the next: item"):
        run("run", dataset=Shuffled(0, 100), test_dataset=Stream(100, 120))


def test_what_a_stream_cannot_do_is_said() -> None:
    with pytest.raises(DataError, match=r"can only be read in turn.*Give test_dataset="):
        run("run", dataset=Stream(0, 100))
    with pytest.raises(DataError, match=r"storage=mmap writes them to a file once"):
        run("run", storage="ram", **streams())
    with pytest.raises(DataError, match="iterating over it yields nothing"):
        run("run", dataset=Stream(0, 0), test_dataset=Stream(100, 120))


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize(("n", "size"), [(1, 5), (10, 1), (103, 10), (20, 50)])
def test_windows_hold_every_row_once_and_close_together(n: int, size: int, in_turn: bool) -> None:
    order = Windows(n, size, torch.Generator().manual_seed(0), in_turn=in_turn)
    rows = order.rows(0, n)
    assert sorted(rows.tolist()) == list(range(n))
    for start, end in ((0, 0), (n // 3, n // 2), (n - 1, n)):
        assert torch.equal(order.rows(start, end), rows[start:end])
    if in_turn:
        assert int((rows - torch.arange(n)).abs().max()) < size
    other = Windows(n, size, torch.Generator().manual_seed(1), in_turn=in_turn)
    assert n < 20 or not torch.equal(rows, other.rows(0, n))


def test_a_pass_ends_in_the_order_in_which_it_began() -> None:
    def sampler(window: int) -> Epochs:
        return Epochs(torch.arange(60), batch_size=8, generator=torch.Generator(), window=window)

    first = sampler(10)
    [first.next() for _ in range(3)]
    again = sampler(0)
    again.load_state_dict(first.state_dict())
    assert all(torch.equal(first.next(), again.next()) for _ in range(5))
