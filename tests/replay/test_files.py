import os
import stat

import pytest

from antelope.replay import files


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_whole_and_with_the_modes_that_open_would_give(tmp_path):
    path = tmp_path / "a.txt"
    with files.replacing(path) as file:
        file.write("é")
        assert not path.exists()
    assert path.read_bytes() == "é".encode()
    ordinary = tmp_path / "b.txt"
    ordinary.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def fill(target):
    """Write to what a block yields: a file, a free name, or a folder."""
    if hasattr(target, "write"):
        target.write("new")
    else:
        (target / "a" if target.is_dir() else target).write_text("new")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    for replace in files.replacing, files.replacing_by_name, files.new_folder:
        with pytest.raises(error), replace(path) as target:  # noqa: PT012 - the block is the subject.
            fill(target)
            raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_is_replaced_and_what_it_leads_to_is_not_written(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = tmp_path / "a.txt"
    for write in files.replacing, files.replacing_by_name:
        path.unlink(missing_ok=True)
        path.symlink_to(victim)
        with write(path) as target:
            fill(target)
        assert not path.is_symlink()
        assert victim.read_text() == "mine"


def test_a_link_that_takes_the_random_name_is_never_opened(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)
    (tmp_path / f".{'0' * 16}.partial").symlink_to(victim)
    with pytest.raises(FileExistsError), files.replacing(tmp_path / "a.txt"):
        pass
    with pytest.raises(FileExistsError), files.new_folder(tmp_path / "folder"):
        pass
    assert victim.read_text() == "mine"


def test_appending_never_follows_a_link_and_wants_a_regular_file(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    for name in "link", "fifo":
        with pytest.raises(OSError):  # noqa: PT011 - each system has its own words.
            files.open_appending(tmp_path / name)
    for word in "one ", "two":
        with files.open_appending(tmp_path / "new") as file:
            file.write(word)
    assert (tmp_path / "new").read_text() == "one two"
    assert victim.read_text() == "mine"


def test_files_put_next_to_the_named_one_come_along(tmp_path):
    with files.replacing_by_name(tmp_path / "model.onnx") as free:
        free.write_text("graph")
        free.with_name("model.onnx.data").write_text("weights")
    assert names(tmp_path) == ["model.onnx", "model.onnx.data"]


def test_the_first_entry_that_is_no_file_is_found(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    assert files.link_in(tmp_path) is None
    os.mkfifo(tmp_path / "a" / "b" / "fifo")
    assert files.link_in(tmp_path) == tmp_path / "a" / "b" / "fifo"
    (tmp_path / "a" / "a").symlink_to(tmp_path)
    assert files.link_in(tmp_path) == tmp_path / "a" / "a"


def test_what_a_killed_process_left_is_removed_and_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f".{'0' * 16}.partial").write_text("")
    (folder / f".{'1' * 16}.partial").mkdir()
    (folder / f".{'2' * 16}.partial").symlink_to(outside)
    (folder / ".mine.partial").write_text("")
    files.remove_partial(folder)
    assert names(folder) == [".mine.partial"]
    assert names(outside) == ["mine"]
