"""Rows 13, 14, 43 of the fault matrix: run directories that cannot, or must not, be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

from antelope import ConfigError, ml
from antelope.envs.decoded import _without_links
from antelope.envs.recording import Recording
from antelope.launcher.ml import main
from antelope.launcher.record import directory

TEXT = "# mine\n"


def train(path: Path, **settings: Any) -> Any:
    usual: dict[str, Any] = {"train_steps": 20, "save_every": 10, "log_every": 5, "plot": False}
    return ml(dataset="Digits", progress=False, path=str(path), **usual | settings)


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
    with pytest.raises(ConfigError, match=rf"is a link to .*name the folder: path={downloaded}\."):
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


def run_ml(*words: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


@pytest.fixture
def here(downloaded: Path, workdir: Path) -> Path:
    """A working directory that holds the downloaded run as `run`."""
    shutil.copytree(downloaded, workdir / "run")
    return workdir


LINKED = [
    ("plot run", "run/plots/accuracy.png"),
    ("plot run out=picture.png", "picture.png"),
    ("predict run/ Digits out=p.csv", ".p.csv.partial"),
    ("predict run/ Digits out=p.csv", "p.csv"),
    ("predict run/ Digits out=p.npy", "p.npy"),
    ("export run format=safetensors", "run/model.safetensors"),
]


@pytest.mark.row(43)
@pytest.mark.parametrize(("words", "name"), LINKED, ids=[f"{w}: {n}" for w, n in LINKED])
def test_what_a_command_writes_takes_the_place_of_a_link(
    here: Path, victim: Path, words: str, name: str
) -> None:
    path = replaced(here, name, lambda path: path.symlink_to(victim / ".bashrc"))
    assert run_ml(*words.split()) == 0
    assert untouched(victim)
    assert name.startswith(".") or not path.is_symlink()


@pytest.mark.row(43)
def test_pictures_of_found_runs_are_not_written_to_a_folder_that_is_a_link(
    here: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced(here / "run", "plots", lambda path: path.symlink_to(victim))
    assert run_ml("plot", "run") == 2
    assert "run/plots is a link). Pass another out=" in capsys.readouterr().err
    assert untouched(victim)


@pytest.mark.row(43)
def test_a_sweep_writes_through_no_link_either(
    here: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced(here, "runs/default/sweep.json", lambda p: p.symlink_to(victim / ".bashrc"))
    assert run_ml("-m", "dataset=Digits", "seed=1,2", "train_steps=2") == 2
    assert "sweep.json is a link" in capsys.readouterr().err
    assert untouched(victim)


@pytest.mark.row(43)
@pytest.mark.parametrize("verb", ["plot", "table"])
@pytest.mark.parametrize("by", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_curves_that_are_no_files_are_named_and_not_waited_for(
    here: Path, capsys: pytest.CaptureFixture[str], verb: str, by: Callable[[Path], object]
) -> None:
    replaced(here / "run", "eval.csv", by)
    assert run_ml(verb, "run") == 2
    said = capsys.readouterr().err
    assert "eval.csv" in said
    assert "is a link" in said or "is not a regular file" in said


@pytest.mark.row(43)
@pytest.mark.parametrize("name", ["eval.csv", "config.yaml"])
@pytest.mark.parametrize("verb", ["plot", "table", "eval"])
def test_a_fifo_in_a_found_run_is_not_waited_for(here: Path, verb: str, name: str) -> None:
    replaced(here / "run", name, os.mkfifo)
    assert run_ml(verb, "run") in (0, 2)


class Screen(gymnasium.Env[Any, Any]):
    """An environment of one step, with frames."""

    render_mode = "rgb_array"
    metadata: ClassVar[dict[str, Any]] = {"render_fps": 30}
    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, **_: Any) -> Any:
        return 0, {}

    def step(self, action: object) -> Any:
        return 0, 0.0, True, False, {}

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8)


@pytest.mark.row(43)
@pytest.mark.parametrize("file", [None, "film.mp4"])
def test_a_film_takes_the_place_of_a_link(tmp_path: Path, victim: Path, file: str | None) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    names = {"a-episode-0.mp4", file or "a-episode-0.mp4"}
    for name in names:
        (folder / name).symlink_to(victim / ".bashrc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = Recording(Screen(), str(folder), episode_trigger=lambda _: True, name_prefix="a")
        env.file = None if file is None else folder / file
        env.reset()
        env.step(0)
        env.close()
    assert untouched(victim)
    film = folder / (file or "a-episode-0.mp4")
    assert film.read_bytes()[4:8] == b"ftyp"
    assert not film.is_symlink()
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.row(43)
def test_a_cache_of_decoded_pictures_with_links_is_left_alone(tmp_path: Path, victim: Path) -> None:
    ordinary, linked = tmp_path / "ordinary", tmp_path / "linked"
    for home in ordinary, linked:
        home.mkdir()
    (linked / "lock").symlink_to(victim / ".bashrc")
    assert _without_links([linked, ordinary, tmp_path / "new"]) == (
        [ordinary, tmp_path / "new"],
        f"{linked / 'lock'} is a link, or not a regular file",
    )
