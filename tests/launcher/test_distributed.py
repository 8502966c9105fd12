"""One run on many devices: what every kind of `learn` does there, and what ends such a run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
import torch

from antelope import ConfigError, ml
from antelope.launcher import distributed
from antelope.launcher.distributed import on_devices, place_in
from antelope.launcher.settings.compose import compose
from antelope.replay.errors import RanksDiffer

from .kinds_on_ranks import ALIKE, BACK, FAILS, SAME, SKIPS

SCRIPT = Path(__file__).with_name("kinds_on_ranks.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of the script, alone and as ranks 0 and 1 of two."""
    folder = tmp_path_factory.mktemp("ranks")
    places = [(0, 1), (0, 2), (1, 2)]
    words = [[sys.executable, str(SCRIPT), str(r), str(world), str(folder)] for r, world in places]
    root = SCRIPT.parents[2]
    ranks = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True, cwd=root) for each in words]
    said = [rank.communicate(timeout=280)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def learnt(folder: Path) -> list[dict[str, Any]]:
    names = ("0-of-1", "0-of-2", "1-of-2")
    return [torch.load(folder / f"{name}.pt", weights_only=False) for name in names]


def rows(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{k: float(v) for k, v in r.items() if k != "mode"} for r in csv.DictReader(file)]


@pytest.mark.parametrize("name", [*SAME, "continued"])
def test_two_ranks_learn_and_measure_what_one_does(
    learnt: list[dict[str, Any]], folder: Path, name: str
) -> None:
    alone, first, second = (each["found"][name] for each in learnt)
    # In bf16 the sum over fewer rows is rounded otherwise.
    near = 1e-3 if name == "bf16" else 1e-6
    for key, weight in alone.items():
        assert torch.equal(first[key], second[key]), key
        assert torch.allclose(first[key], weight, rtol=0, atol=near), key
    if name == "bf16":
        return
    # Some log nothing, and have no train.csv.
    for file in sorted(each.name for each in (folder / "1" / name).glob("*.csv")):
        ours, theirs = (rows(folder / world / name / file) for world in ("2", "1"))
        assert len(ours) == len(theirs) > 0
        for mine, other in zip(ours, theirs, strict=True):
            assert mine == pytest.approx(other, abs=2e-6)


@pytest.mark.parametrize("name", [*ALIKE, *SKIPS, *BACK, "stopped"])
def test_ranks_end_with_the_same_weights_and_buffers(
    learnt: list[dict[str, Any]], name: str
) -> None:
    _, first, second = (each["found"].get(name) for each in learnt)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(torch.isfinite(weight).all() for weight in first.values())


MESSAGES = {
    "more updates": "rank 0: step 1 of task 0; rank 1: update 2 of 6 parameters",
    "sometimes None": "decide by what is the same on all of them",
    "by hand": "step an optimiser of torch.optim: their gradients are summed",
    "fails": "Rank 1 has failed. ValueError: no such row",
    "NaN": "Diverged: The loss became NaN at learning step 3",
    "other settings": "differ in seed= (0 and 1)",
}


@pytest.mark.parametrize("name", FAILS)
def test_what_ranks_do_not_share_is_one_error_on_all_of_them(
    learnt: list[dict[str, Any]], name: str
) -> None:
    first, second = (each["raised"][name] for each in learnt[1:])
    assert MESSAGES[name] in first
    known = {"fails": "ValueError: no such row", "other settings": "differ in seed= (1 and 0)"}
    assert known.get(name, MESSAGES[name]) in second


def test_a_signal_at_any_rank_stops_all_of_them_at_the_same_step(
    learnt: list[dict[str, Any]],
) -> None:
    first, second = learnt[1:]
    assert first["raised"]["killed"] == second["raised"]["killed"] == "SignalExit: 143"
    assert first["found"]["killed at"]["status"] == "interrupted"
    assert first["found"]["killed at"]["step"] == 7


def test_one_rank_alone_writes(folder: Path) -> None:
    """Two writers would have claimed the directory twice, and moved each other's run aside."""
    found = {each.name for each in (folder / "2").iterdir()}
    assert found == {*SAME, *ALIKE, *SKIPS, *BACK, *FAILS, "continued", "stopped"} - {
        "other settings"
    }


TWO_RUNS = """
import sys
import torch
from antelope import ml

rows = torch.arange(48.0).view(16, 3) % 7, torch.arange(16) % 2
for name in ("first", "second"):
    path = f"{sys.argv[1]}/{name}"
    ml(dataset=rows, test_dataset=rows, epochs=1, path=path, device="cpu", plot=False, progress=False)
"""


def test_a_script_of_torchrun_may_have_several_runs(tmp_path: Path) -> None:
    """The second one must not find the addresses that the ranks had in the first."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RUNS, str(tmp_path)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=SCRIPT.parents[2],
        )
        for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    for name in ("first", "second"):
        assert json.loads((tmp_path / name / "status.json").read_text())["status"] == "finished"


class TestPlaceIn:
    def test_a_process_of_torchrun_knows_its_place(self) -> None:
        found = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
        place = place_in({**found, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"})
        assert place is not None
        assert (place.rank, place.local, place.world) == (3, 1, 4)

    def test_a_single_process_is_no_rank(self) -> None:
        assert place_in({}) is None
        assert place_in({"RANK": "0", "WORLD_SIZE": "1"}) is None

    def test_half_of_the_variables_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT"):
            place_in({"RANK": "0", "WORLD_SIZE": "2"})


class TestDevices:
    def test_runs_in_two_threads_take_turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process can be a rank of one run only; the other would meet ranks that are not its own."""
        at_work, most = [0], [0]

        @contextmanager
        def starting(*_: object) -> Iterator[None]:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
            sleep(0.05)
            yield
            at_work[0] -= 1

        monkeypatch.setattr(distributed, "starting", starting)
        settings = compose(("dataset=Digits", "devices=2", "device=cpu"), {})
        threads = [Thread(target=on_devices, args=(settings, int)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]

    def test_a_rank_that_ends_before_it_joins_is_noticed(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """torch would wait an hour for it."""
        monkeypatch.setattr(distributed.sys, "executable", shutil.which("false"))
        with pytest.raises(RanksDiffer, match="Rank 1 has ended with 1"):
            ml(dataset="Digits", devices=2, device="cpu", path=tmp_path / "run")

    def test_tasks_one_by_one_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"ml\.tasks runs in one process"):
            ml.tasks(dataset="Digits", devices=2, path=tmp_path)

    def test_a_batch_size_to_be_tried_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="rows of all 2 devices"):
            ml(dataset="Digits", devices=2, batch_size="auto", path=tmp_path)

    def test_more_gpus_than_there_are_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"devices=99, but this machine has \d+ GPU"):
            ml(dataset="Digits", devices=99, device="cuda", path=tmp_path)
