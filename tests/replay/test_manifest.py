"""Folders from elsewhere: what a manifest may name, and what is read of it."""

import hashlib
import json
import os

import pytest

from antelope.replay.manifest import (
    check_name,
    open_checked,
    open_sized,
    parse_json,
    read_json,
    read_manifest,
)

GOOD = hashlib.sha256(b"hello").hexdigest()


def folder(tmp_path, **manifest):
    manifest = {"format": "f-2", "sha256": {"a.bin": GOOD}, "size": {"a.bin": 5}, **manifest}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "a.bin").write_bytes(b"hello")
    return tmp_path


def read(path, **options):
    return read_manifest(path, formats=("f-1", "f-2"), sized=("f-2",), **options)


def test_a_manifest_is_read_with_what_it_says(tmp_path):
    manifest = read(folder(tmp_path, more=[1]))
    assert (manifest.format, manifest.size, manifest.rest) == ("f-2", {"a.bin": 5}, {"more": [1]})
    with open_checked(tmp_path, "a.bin", manifest) as file:
        assert file.read() == (tmp_path / "a.bin").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "/dev/zero",
        "a/b",
        "..",
        ".",
        "",
        "a\\b",
        "c:a",
        "a\x1b[2J",
        "a\n",
        "NUL",
        "com1.txt",
        "a.",
    ],
)
def test_a_name_that_is_not_of_its_own_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="not the name of a file in the folder"):
        check_name(name)
    with pytest.raises(ValueError, match="not the name of a file in the folder"):
        read(folder(tmp_path, sha256={name: GOOD}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"format": "f-9"}, "unknown here"),
        ({"format": 3}, "not a manifest"),
        ({"sha256": ["a.bin"]}, "does not list the files"),
        ({"sha256": {"a.bin": "00"}}, "no SHA-256 of 'a.bin'"),
        ({"size": {}}, "the size of every file"),
        ({"size": {"a.bin": 5, "b": 1}}, "the size of every file"),
        ({"size": {"a.bin": -1}}, "not a number of bytes"),
        ({"size": {"a.bin": True}}, "not a number of bytes"),
    ],
)
def test_a_manifest_of_another_structure_is_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        read(folder(tmp_path, **wrong))


def test_an_older_format_needs_no_sizes(tmp_path):
    assert read(folder(tmp_path, format="f-1", size={})).size == {}


def test_links_pipes_and_devices_are_not_opened(tmp_path):
    (tmp_path / "target").write_bytes(b"hello")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "link", tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match=r"link|regular|directory|symbolic"):
            open_sized(path)
    with pytest.raises(OSError, match="regular"):
        open_sized(type(tmp_path)("/dev/zero"))


def test_a_file_of_another_size_is_not_even_hashed(tmp_path):
    manifest = read(folder(tmp_path))
    with open(tmp_path / "a.bin", "wb") as file:
        file.truncate(2**43)  # Sparse: it takes no space, and would take hours to hash.
    with pytest.raises(ValueError, match="the manifest says 5"):
        open_checked(tmp_path, "a.bin", manifest)
    with pytest.raises(ValueError, match="can be read here"):
        open_sized(tmp_path / "a.bin")


def test_a_file_with_other_bytes_does_not_match(tmp_path):
    manifest = read(folder(tmp_path))
    (tmp_path / "a.bin").write_bytes(b"hellO")
    with pytest.raises(ValueError, match="SHA-256"):
        open_checked(tmp_path, "a.bin", manifest)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 50_000, b"NaN", b"[Infinity]", b"{", b"\xff"]
)
def test_json_that_is_nested_too_deeply_or_not_json_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(data)


def test_json_is_read_up_to_a_bound(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2]")
    assert read_json(tmp_path / "a.json") == [1, 2]
    with pytest.raises(ValueError, match="at most 3 can be read"):
        read_json(tmp_path / "a.json", largest=3)
