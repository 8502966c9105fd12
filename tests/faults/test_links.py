"""Rows 13, 14, 43 of the fault matrix: run directories that cannot, or must not, be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from antelope import ConfigError, ml
from antelope.launcher.ml import main
from antelope.launcher.record import directory

TEXT = "# mine\n"


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.layer(obs.flatten(1))

    def learn(self, replay: Any) -> torch.Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


def train(path: Path, **settings: Any) -> Any:
    usual: dict[str, Any] = {"train_steps": 20, "save_every": 10, "log_every": 5, "plot": False}
    return ml(model=Net, dataset="Digits", progress=False, path=str(path), **usual | settings)


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, as somebody may offer it."""
    path = tmp_path_factory.mktemp("links") / "run"
    train(path)
    return path


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the user's, with a file that every link of the tests leads to."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / ".bashrc").write_text(TEXT)
    return folder


def untouched(victim: Path) -> bool:
    return [p.name for p in victim.iterdir()] == [".bashrc"] and (
        victim / ".bashrc"
    ).read_text() == TEXT


FILES = (
    *("config.yaml", "status.json", "train.csv", "eval.csv", ".lock"),
    *(".train.csv.partial", ".eval.csv.partial", ".config.yaml.partial", ".status.json.partial"),
    *("plots/curves.png", "plots/.curves.png.partial", "plots/model.txt", "videos/a.mp4"),
    *("checkpoints/000002/state.json", "checkpoints/000002/model.safetensors", "notes.txt"),
)
FOLDERS = ("checkpoints", "plots", "videos", "tensorboard", "checkpoints/partial-000003")


def replaced(run: Path, name: str, by: Callable[[Path], object]) -> Path:
    """The run's entry `name`, after `by` has put something else there."""
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    by(path)
    return path


@pytest.mark.row(43)
@pytest.mark.parametrize("resume", [True, False], ids=["resumed", "replaced"])
@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_link_in_a_run_directory_is_named_and_nothing_is_written_through_it(
    downloaded: Path, victim: Path, tmp_path: Path, name: str, resume: bool
) -> None:
    run = shutil.copytree(downloaded, tmp_path / "run")
    target = victim if name in FOLDERS else victim / ".bashrc"
    path = replaced(run, name, lambda path: path.symlink_to(target))
    with pytest.raises(ConfigError) as error:
        train(run, resume=resume, train_steps=30)
    assert f"{path} is a link" in str(error.value)
    assert path.is_symlink()
    assert untouched(victim)


@pytest.mark.row(43)
@pytest.mark.parametrize("name", ["train.csv", ".lock", "config.yaml", "plots/curves.png"])
def test_a_fifo_in_a_run_directory_is_named_and_not_waited_for(
    downloaded: Path, tmp_path: Path, name: str
) -> None:
    run = shutil.copytree(downloaded, tmp_path / "run")
    path = replaced(run, name, os.mkfifo)
    with pytest.raises(ConfigError, match="neither a file nor a folder") as error:
        train(run, resume=True, train_steps=30)
    assert str(path) in str(error.value)


@pytest.mark.row(43)
def test_the_run_directory_itself_is_not_a_link(downloaded: Path, tmp_path: Path) -> None:
    link = tmp_path / "run"
    link.symlink_to(downloaded)
    with pytest.raises(ConfigError, match="is a link"):
        train(link, resume=True, train_steps=30)
    folder = tmp_path / "runs"
    folder.symlink_to(tmp_path / "scratch")  # As on clusters: above the run, links are the user's.
    (tmp_path / "scratch").mkdir()
    train(folder / "run")
    assert (tmp_path / "scratch" / "run" / "config.yaml").is_file()


@pytest.mark.row(43)
def test_only_what_a_run_writes_matters_in_a_folder_that_holds_none(
    tmp_path: Path, victim: Path
) -> None:
    (tmp_path / "data").symlink_to(victim)
    train(tmp_path)
    assert untouched(victim)
    other = tmp_path / "other"
    other.mkdir()
    (other / "checkpoints").symlink_to(victim)
    with pytest.raises(ConfigError, match=r"other/checkpoints is a link"):
        train(other)
    assert untouched(victim)


@pytest.mark.row(43)
def test_links_that_a_tracker_keeps_within_its_folder_are_no_obstacle(
    downloaded: Path, tmp_path: Path, victim: Path
) -> None:
    run = shutil.copytree(downloaded, tmp_path / "run")
    (run / "wandb" / "run-1").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("run-1")
    train(run, resume=True, train_steps=30)
    (run / "wandb" / "debug.log").symlink_to(victim / ".bashrc")
    with pytest.raises(ConfigError, match=r"wandb/debug.log is a link"):
        train(run, resume=True, train_steps=40)


@pytest.mark.row(43)
def test_a_lock_that_is_another_file_is_not_emptied(
    downloaded: Path, tmp_path: Path, victim: Path
) -> None:
    run = shutil.copytree(downloaded, tmp_path / "run")
    os.link(victim / ".bashrc", run / ".lock")
    with pytest.raises(ConfigError, match=r"\.lock is a hard link"):
        train(run, resume=True, train_steps=30)
    assert untouched(victim)


@pytest.mark.row(43)
def test_files_that_are_also_elsewhere_are_replaced_and_not_changed_in_place(
    downloaded: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(downloaded, tmp_path / "run")
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=os.link)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    train(run, resume=True, train_steps=30)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


@pytest.mark.row(43)
def test_what_a_killed_run_left_is_removed(downloaded: Path, tmp_path: Path) -> None:
    run = shutil.copytree(downloaded, tmp_path / "run")
    (run / "plots").mkdir(exist_ok=True)
    left = [run / f".{'0' * 16}.partial", run / "plots" / f".{'1' * 16}.partial"]
    for path in left:
        path.write_text("half")
    train(run, resume=True, train_steps=30)
    assert not any(path.exists() for path in left)


@pytest.mark.row(13)
@pytest.mark.parametrize("words", [["path=file/run"], ["experiment=e"]], ids=" ".join)
def test_a_place_that_cannot_be_written_is_refused_before_data_is_read(
    workdir: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    for name in ("file", "runs/e", "data/cat/broken.png", "data/dog/broken.png"):
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / name).write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["dataset=data", *words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "is not a folder). Set another path=" in said
    assert "broken.png" not in said


@pytest.mark.row(13)
def test_a_folder_without_write_permission_is_refused(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As every other user's `access` answers; root may write everywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=r"Permission denied\). Set another path="):
        train(workdir / "run")
    assert not (workdir / "run").exists()


@pytest.mark.row(14)
def test_the_second_run_in_a_directory_is_refused_with_the_process_of_the_first(
    workdir: Path,
) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from antelope.launcher.record.directory import RunDirectory\n"
        "held = RunDirectory(Path('run').absolute(), resume=False); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="is writing to") as error:
            train(workdir / "run")
        if directory._holder(workdir / "run" / ".lock"):  # Linux tells.
            assert f"(process {first.pid})" in str(error.value)
        first.kill()
    train(workdir / "run")  # The system frees the lock of a killed process.
