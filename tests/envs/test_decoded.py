"""Pictures are decoded once, by all cores, and mapped into memory by later runs."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from antelope.envs import decoded, in_memory, parallel, statistics
from antelope.envs.arrays import Arrays
from antelope.envs.datasets import read
from antelope.envs.decoded import Cache
from antelope.envs.folders import open_folder
from antelope.envs.images import Pictures
from antelope.replay import DataError, LazyColumn


class Told:
    """A report that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done: list[int] = []

    def begin(self, text: str, done: int, total: int) -> None:
        self.lines.append(text)
        self.done.append(done)

    def advance(self, done: int) -> None:
        self.done.append(done)

    def end(self) -> None:
        pass

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pictures are kept too, in blocks of eight."""
    monkeypatch.setattr(decoded, "_WORTH_S", 0.0)
    monkeypatch.setattr(decoded, "_BLOCK_ROWS", 8)
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 pictures of two classes."""
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for k in range(40):
        file = root / ("cat", "dog")[k % 2] / f"{k:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(file)
    return root


def kept(
    root: Path, *, size: int | None = None, told: Told | None = None
) -> tuple[Arrays, Arrays, Cache]:
    """The parts of a folder, read through a cache beside it."""
    cache = Cache([root.parent / "decoded"], told or Told())
    pictures, parts = Pictures(size, colour=True), open_folder(root).split()
    assert parts.held_out is not None
    train = read(parts.train, name="photos", pictures=pictures, cache=cache)
    held_out = read(parts.held_out, name="held-out photos", pictures=pictures, cache=cache)
    return train, held_out, cache


def entries(root: Path) -> list[Path]:
    return sorted(path.parent for path in (root.parent / "decoded").glob("*/*/about.json"))


def pixels(arrays: Arrays) -> Tensor:
    assert isinstance(arrays.inputs, Tensor)
    return arrays.inputs


@pytest.mark.parametrize("size", [None, 4])
def test_rows_labels_and_statistics_are_those_of_decoding_one_by_one(
    photos: Path, size: int | None
) -> None:
    pictures, parts = Pictures(size, colour=True), open_folder(photos).split()
    for _ in range(2):  # Decoded, then opened.
        train, held_out, _ = kept(photos, size=size)
        assert (len(train), len(held_out)) == (32, 8)
        for ours, part in ((train, parts.train), (held_out, parts.held_out)):
            theirs = read(part, name="photos", pictures=pictures)
            assert torch.equal(pixels(ours), pixels(theirs))
            assert torch.equal(ours.targets, theirs.targets)
            assert ours.names == theirs.names
            assert all(
                torch.equal(torch.as_tensor(one), torch.as_tensor(other))
                for one, other in zip(
                    statistics.statistics([ours.inputs]),
                    statistics.statistics([pixels(theirs).clone()]),
                    strict=True,
                )
            )


def test_the_second_time_nothing_is_decoded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, told = Told(), Told()
    kept(photos, told=first)
    assert [line.split(" into ")[0] for line in first.lines] == [
        "decoding 32 pictures of photos",
        "decoding 8 pictures of held-out photos",
    ]
    assert max(first.done) == 32
    monkeypatch.setattr("antelope.envs.in_memory.load", None)
    kept(photos, told=told)
    assert told.lines == []


def test_each_part_of_a_folder_has_an_entry_of_its_own(photos: Path) -> None:
    parts, cache = open_folder(photos).split(), Cache([photos.parent / "decoded"], Told())
    for part in (parts.train, parts.held_out):
        ours, theirs = (
            read(part, name="photos", pictures=Pictures(colour=True), cache=kept_in)
            for kept_in in (cache, None)
        )
        assert torch.equal(pixels(ours), pixels(theirs))


@pytest.mark.parametrize("change", ["time", "size", "name"])
def test_what_has_changed_is_decoded_again_and_replaces_the_old(photos: Path, change: str) -> None:
    kept(photos)
    before = entries(photos)
    file = photos / "cat" / "00.png"
    if change == "time":
        os.utime(file, (1, 1))
    elif change == "size":
        then = file.stat().st_mtime_ns
        Image.new("RGB", (5, 6), "red").save(file)
        os.utime(file, ns=(then, then))  # As a copy that keeps times does.
    else:
        file.rename(file.with_name("01.png"))
    told = Told()
    train, held_out, _ = kept(photos, told=told)
    assert len(told.lines) == 2
    assert len(entries(photos)) == len(before) == 2
    assert not set(entries(photos)) & set(before)
    everything = torch.cat([pixels(train), pixels(held_out)])
    assert everything.shape == (40, 3, 6, 5)
    if change == "size":
        red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
        assert int((everything == red).flatten(1).all(1).sum()) == 1


def test_folders_of_the_same_name_are_kept_apart(photos: Path) -> None:
    other = photos.parent / "elsewhere" / "photos"
    shutil.copytree(photos, other)
    told = Told()
    for root in (photos, other) * 2:
        pictures, cache = Pictures(colour=True), Cache([photos.parent / "decoded"], told)
        read(open_folder(root).train, name="photos", pictures=pictures, cache=cache)
    assert len(told.lines) == 2


def test_other_sizes_of_the_same_pictures_are_kept_beside_each_other(photos: Path) -> None:
    kept(photos, size=4)
    kept(photos, size=3)
    told = Told()
    train, *_ = kept(photos, size=4, told=told)
    assert (len(entries(photos)), told.lines) == (4, [])
    assert pixels(train).shape == (32, 3, 4, 4)


def interrupted(
    work: Any, blocks: Sequence[int], *, cores: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Two blocks, then Ctrl-C."""
    yield from ((block, work(block)) for block in blocks[:2])
    raise KeyboardInterrupt


def interrupt(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stop a preparation after two blocks; returns its journal."""
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "by_all_cores", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kept(photos)
    assert entries(photos) == []
    (journal,) = (photos.parent / "decoded").glob("*/*.part/done.jsonl")
    return journal


@pytest.mark.parametrize(
    "rest", [b"", b'[3, {"sums": [1', b"\0" * 9, b"\0" * 9 + b"\n", b"0\n", b'[3, {"sums": [1]}]']
)
def test_an_interrupted_preparation_continues_where_it_was(
    photos: Path, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    journal = interrupt(photos, monkeypatch)
    # As if the machine had stopped in the middle of a line.
    journal.write_bytes(journal.read_bytes() + rest)
    told = Told()
    train, *_ = kept(photos, told=told)
    assert told.done[0] == 16
    theirs = read(open_folder(photos).split().train, name="photos", pictures=Pictures(colour=True))
    assert torch.equal(pixels(train), pixels(theirs))
    found, expected = (
        statistics.statistics([column])[0] for column in (train.inputs, pixels(theirs).clone())
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("lost", ["removed", "cut"])
def test_an_interrupted_preparation_whose_pixels_are_gone_starts_over(
    photos: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    pixels_file = interrupt(photos, monkeypatch).with_name("pixels")
    if lost == "cut":
        os.truncate(pixels_file, 100)
    else:
        pixels_file.unlink()
    told = Told()
    train, *_ = kept(photos, told=told)
    assert told.done[0] == 0
    theirs = read(open_folder(photos).split().train, name="photos", pictures=Pictures(colour=True))
    assert torch.equal(pixels(train), pixels(theirs))


@pytest.mark.parametrize("file", ["pixels", "about.json"])
def test_a_damaged_entry_is_replaced(photos: Path, file: str) -> None:
    kept(photos)
    for entry in entries(photos):
        os.truncate(entry / file, 10)
    told = Told()
    train, _, cache = kept(photos, told=told)
    assert (len(told.lines), cache.notes) == (2, [])
    theirs = read(open_folder(photos).split().train, name="photos", pictures=Pictures(colour=True))
    assert torch.equal(pixels(train), pixels(theirs))
    kept(photos, told=told)
    assert len(told.lines) == 2


def test_broken_pictures_are_all_named_before_training(photos: Path) -> None:
    for name in ("00", "04"):
        (photos / "cat" / f"{name}.png").write_bytes(b"no picture")
    (photos / "dog" / "03.png").write_bytes(b"")
    cache, pictures = Cache([photos.parent / "decoded"], Told()), Pictures(colour=True)
    with pytest.raises(DataError) as raised:
        read(open_folder(photos).train, name="photos", pictures=pictures, cache=cache)
    text = str(raised.value)
    assert all(name in text for name in ("00.png", "04.png", "03.png", "It is empty", "remove it"))
    assert entries(photos) == []


def test_without_a_place_to_keep_them_pictures_are_decoded_in_memory(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos.parent / "decoded").write_text("a file in the way")
    train, _, cache = kept(photos)
    assert pixels(train).shape == (32, 3, 6, 5)
    assert "decoded in memory" in cache.notes[0]
    (photos.parent / "decoded").unlink()

    def full(file: Path, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(decoded, "_reserve", full)
        train, _, cache = kept(photos)
    assert pixels(train).shape == (32, 3, 6, 5)
    assert cache.notes[0].endswith("decoded: no space left on device)")


def test_more_than_half_of_the_free_space_is_never_taken(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    *_, cache = kept(photos)
    assert "half of" in cache.notes[0]


def test_the_next_folder_is_tried_where_the_first_is_read_only(photos: Path) -> None:
    (photos.parent / "file").write_text("")
    folders = [photos.parent / "file" / "decoded", photos.parent / "decoded"]
    cache = Cache(folders, Told())
    read(open_folder(photos).train, name="photos", pictures=Pictures(colour=True), cache=cache)
    assert (len(entries(photos)), cache.notes) == (1, [])


def test_where_none_can_be_written_to_the_note_names_the_first(photos: Path) -> None:
    (photos.parent / "file").write_text("")
    first, second = (photos.parent / "file" / name for name in ("first", "second"))
    cache = Cache([first, second], Told())
    read(open_folder(photos).train, name="photos", pictures=Pictures(colour=True), cache=cache)
    assert f"({first}: " in cache.notes[0]
    assert str(second) not in cache.notes[0]


def test_two_at_once_decode_once(photos: Path) -> None:
    told = [Told(), Told()]
    found: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda t=t: found.append(pixels(kept(photos, told=t)[0])))
        for t in told
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    decodings = [line for t in told for line in t.lines if line.startswith("decoding")]
    assert len(decodings) == 2
    assert torch.equal(*found)


def test_a_folder_that_is_too_small_to_matter_leaves_no_files(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "_WORTH_S", 0.5)
    train, held_out, _ = kept(photos)
    assert not (photos.parent / "decoded").exists()
    assert (len(train), len(held_out)) == (32, 8)


def test_parts_agree_on_a_size_that_all_pictures_decide(photos: Path) -> None:
    parts = open_folder(photos).split()
    assert parts.held_out is not None
    # Most pictures are large, but not most of those to learn from, nor most of the first 32.
    for file in parts.held_out.paths + parts.train.paths[-15:]:
        Image.new("RGB", (50, 60), "red").save(file)
    train, held_out, _ = kept(photos)
    assert train.inputs.shape[1:] == held_out.inputs.shape[1:] == (3, 60, 50)


def test_that_pictures_were_resized_is_said_each_time(photos: Path) -> None:
    for _ in range(2):
        pictures, cache = Pictures(4, colour=True), Cache([photos.parent / "decoded"], Told())
        read(open_folder(photos).train, name="photos", pictures=pictures, cache=cache)
        assert pictures.describe() == "images of 5 x 6 resized to 4 x 4 pixels"


def test_rows_can_be_written_to_without_changing_the_file(photos: Path) -> None:
    train, *_ = kept(photos)
    before = pixels(train).clone()
    pixels(train).zero_()
    assert torch.equal(pixels(kept(photos)[0]), before)


def test_pictures_with_16_bits_are_kept_as_floats(tmp_path: Path) -> None:
    for k in range(20):
        file = tmp_path / "deep" / ("cat", "dog")[k % 2] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 1000 * k, np.uint16)).save(file)
    train, *_ = kept(tmp_path / "deep")
    theirs = read(
        open_folder(tmp_path / "deep").split().train, name="deep", pictures=Pictures(colour=True)
    )
    assert train.inputs.dtype == torch.float32
    assert torch.equal(pixels(train), pixels(theirs))


def opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


class TestTorchvision:
    def test_a_folder_read_in_two_ways_is_kept_twice(self, photos: Path) -> None:
        told = Told()
        for _ in range(2):
            cache = Cache([photos.parent / "decoded"], told)
            for source in (ImageFolder(str(photos)), open_folder(photos).train):
                read(source, name="photos", pictures=Pictures(colour=True), cache=cache)
        assert len(told.lines) == 2

    def test_an_image_folder_is_kept_too(self, photos: Path) -> None:
        told = Told()
        source = ImageFolder(str(photos))
        for _ in range(2):
            cache = Cache([photos.parent / "decoded"], told)
            ours = read(source, name="photos", cache=cache)
            theirs = read(source, name="photos")
            assert torch.equal(pixels(ours), pixels(theirs))
            assert torch.equal(ours.targets, theirs.targets)
        assert len(told.lines) == 1

    def test_that_pictures_were_not_turned_is_remembered(self, photos: Path) -> None:
        file, exif = photos / "cat" / "00.png", Image.Exif()
        exif[0x0112] = 6
        opened(str(file)).save(file, exif=exif)
        told = Told()
        for _ in range(2):  # Predictions of files depend on it.
            pictures, cache = Pictures(), Cache([photos.parent / "decoded"], told)
            read(ImageFolder(str(photos)), name="photos", pictures=pictures, cache=cache)
            assert pictures.unturned
        assert len(told.lines) == 1

    def test_with_transforms_or_another_loader_it_is_read_as_it_reads(self, photos: Path) -> None:
        cache = Cache([photos.parent / "decoded"], Told())
        read(ImageFolder(str(photos), transform=np.asarray), name="photos", cache=cache)
        read(ImageFolder(str(photos), loader=opened), name="photos", cache=cache)
        assert entries(photos) == []

    def test_pictures_of_another_backend_are_not_known(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert in_memory.files(ImageFolder(str(photos))) is not None
        monkeypatch.setattr("torchvision.get_image_backend", lambda: "accimage")
        assert in_memory.files(ImageFolder(str(photos))) is None

    def test_rows_of_one_larger_than_memory_are_not_copied(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoded, "_memory_bytes", lambda: 1000)
        cache = Cache([photos.parent / "decoded"], Told())
        arrays = read(ImageFolder(str(photos)), name="photos", cache=cache)
        theirs = read(ImageFolder(str(photos)), name="photos")
        assert isinstance(arrays.inputs, LazyColumn)
        index = torch.tensor([3, 39, 3])
        assert torch.equal(arrays.inputs.take(index), pixels(theirs)[index])


class TestWorkers:
    @pytest.mark.parametrize("how", ["_in_copies", "_in_threads"])
    def test_each_block_is_worked_on_once(self, how: str) -> None:
        results = dict(getattr(parallel, how)(lambda block: block**2, range(20), 3))
        assert results == {block: block**2 for block in range(20)}

    @pytest.mark.parametrize("how", ["_in_copies", "_in_threads"])
    def test_an_error_is_raised_here(self, how: str) -> None:
        def work(block: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(OSError, match="No space left"):
            list(getattr(parallel, how)(work, range(5), 2))

    def test_an_interrupt_is_left_to_the_process_that_started_them(self) -> None:
        def work(block: int) -> int:
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C in a console reaches all processes.
            return block

        # A shell's background jobs ignore SIGINT, and so would their copies.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            assert dict(parallel._in_copies(work, range(5), 2)) == {n: n for n in range(5)}
        finally:
            signal.signal(signal.SIGINT, before)

    def test_they_end_at_once_whatever_this_process_does_with_the_signal(self) -> None:
        def work(block: int) -> int:
            time.sleep(20 * (block > 1))
            return block

        began, before = time.monotonic(), signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            with closing(parallel._in_copies(work, range(4), 2)) as results:
                assert sorted([next(results), next(results)]) == [(0, 0), (1, 1)]
        finally:
            signal.signal(signal.SIGTERM, before)
        assert time.monotonic() - began < 15

    def test_a_worker_that_dies_is_an_error_that_says_what_to_do(self) -> None:
        def work(block: int) -> None:
            os.kill(os.getpid(), 9)

        with pytest.raises(DataError, match=r"exit code -9.*Start again: what is decoded is kept"):
            list(parallel._in_copies(work, range(5), 2))

    def test_so_is_one_that_died_before_it_was_given_a_block(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        worker = multiprocessing.get_context("fork").Process(target=os._exit, args=(3,))
        worker.start()
        worker.join()
        theirs.close()
        with pytest.raises(DataError, match="exit code 3"):
            list(parallel._shared_out(range(5), {ours: worker}))


def test_asking_for_the_times_of_many_files_takes_a_few_bytes_for_each(tmp_path: Path) -> None:
    file, n = tmp_path / "a", 50_000
    file.touch()
    listing = [str(file)] * n
    files = decoded.Files("", "", listing, [], str, listing, str, "", whole=True)
    tracemalloc.start()
    try:
        decoded._Listed.of(files)
        assert tracemalloc.get_traced_memory()[1] < 40 * n
    finally:
        tracemalloc.stop()
