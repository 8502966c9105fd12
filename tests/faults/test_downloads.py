"""Rows 26 and 27: data that is not there, and servers that hang, stop half-way, or send something else."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import MNIST

from antelope import ConfigError, DataError, ml
from antelope.envs import downloads
from antelope.replay import DownloadError

from .console import MAIN, finished

SHORT: dict[str, Any] = {"dataset": "MNIST", "train_steps": 2, "plot": False, "data_dir": "data"}


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as one of MNIST's files."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


FILES = {
    f"{part}-{kind}-ubyte.gz": idx(array)
    for part, rows in (("train", 40), ("t10k", 20))
    for kind, array in {
        "images-idx3": np.arange(rows * 784, dtype=np.uint8).reshape(rows, 28, 28),
        "labels-idx1": np.arange(rows, dtype=np.uint8) % 10,
    }.items()
}


class Server(http.server.ThreadingHTTPServer):
    """Serves `FILES`, with a fault in some of the answers.

    Attributes:
        fault: "half", "html", "other", "hang", "hang half" or None.
        faulty: Number of answers that have it, from the first one.
        answers: Names of the files that were asked for, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fault: str | None = None
        self.faulty, self.answers, self.over = 10**6, [], threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        name = self.path.rpartition("/")[2]
        server.answers.append(name)
        fault = server.fault if len(server.answers) <= server.faulty else None
        data = FILES[name]
        if fault == "hang":
            server.over.wait()
        sent = {
            "half": data[: len(data) // 2],
            "hang half": data[: len(data) // 2],
            "html": b"<html>Please log in.</html>",
            "other": gzip.compress(b"other data"),
        }.get(str(fault), data)
        self.send_response(200)
        self.send_header(
            "Content-Length", str(len(data if fault in ("half", "hang half") else sent))
        )
        self.end_headers()
        self.wfile.write(sent)
        if fault == "hang half":
            server.over.wait()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The only mirror of a small MNIST."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    resources = [(name, hashlib.md5(data).hexdigest()) for name, data in FILES.items()]
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(downloads, "_READ_SECONDS", 0.3)
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def left(folder: str = "data") -> list[str]:
    """What is in a folder, without the lock."""
    found = (p.relative_to(folder) for p in Path(folder).rglob("*"))
    return sorted(str(p) for p in found if p.name != ".downloading.lock")


@pytest.mark.row(27)
@pytest.mark.parametrize("fault", ["half", "html", "other", "hang", "hang half"])
def test_a_download_that_fails_is_tried_once_more_and_nothing_is_kept(
    fault: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = fault
    with pytest.raises(DownloadError) as raised:
        ml(**SHORT)
    message = str(raised.value)
    assert "MNIST could not be downloaded" in message
    assert "Nothing of it was kept" in message
    assert str(Path("data").resolve()) in message
    assert left() == []
    assert capsys.readouterr().err.count("trying once more") == 1
    assert not Path("runs").exists()
    server.fault = None
    ml(**SHORT, progress=False)  # What comes later is not spoilt.


@pytest.mark.row(27)
def test_the_second_try_is_enough(server: Server) -> None:
    server.fault, server.faulty = "html", 2
    run = ml(**SHORT, progress=False)
    assert run.spec.action.n == 10
    assert [name for name in left() if "partial" in name] == []
    asked = len(server.answers)
    ml(**SHORT, progress=False)
    assert len(server.answers) == asked  # It is there now.


@pytest.mark.row(27)
def test_what_a_killed_download_left_is_removed_and_never_used(server: Server) -> None:
    torn = Path("data/.0123456789abcdef.partial/MNIST/raw")
    torn.mkdir(parents=True)
    (torn / "train-images-idx3-ubyte").write_bytes(b"half")
    ml(**SHORT, progress=False)
    assert [name for name in left() if "partial" in name] == []


@pytest.mark.row(27)
def test_files_that_the_user_has_put_there_are_not_downloaded(server: Server) -> None:
    raw = Path("data/MNIST/raw")
    raw.mkdir(parents=True)
    for name, data in FILES.items():
        (raw / name).write_bytes(data)
    ml(**SHORT, progress=False)
    assert server.answers == []


@pytest.mark.row(27)
def test_a_failed_download_ends_the_console_with_one(server: Server) -> None:
    server.fault = "html"
    found = f"MNIST.mirrors, MNIST.resources = {MNIST.mirrors!r}, {MNIST.resources!r}"
    code = f"from torchvision.datasets import MNIST; {found}; {MAIN}"
    ended = finished("dataset=MNIST", "data_dir=data", code=code)
    assert ended.returncode == 1
    assert "MNIST could not be downloaded" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert left() == []


@pytest.mark.row(26)
def test_a_misspelt_data_set_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="MNIST"):
        ml(**SHORT | {"dataset": "MNITS"})


@pytest.mark.row(26)
def test_no_network_is_one_error_and_no_second_try(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def unreachable(*args: Any, **options: Any) -> None:
        tried.append(args)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(DataError, match=r"check the network, or use dataset=Digits") as raised:
        ml(**SHORT)
    assert not isinstance(raised.value, DownloadError)
    assert "trying once more" not in capsys.readouterr().err
    assert len(tried) == 1
    assert socket.create_connection is unreachable


@pytest.mark.row(26)
def test_a_proxy_that_swallows_everything_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def swallowed(address: Any, timeout: Any = None, *args: Any, **options: Any) -> None:
        waited.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(MNIST, "mirrors", ["http://one.example/", "http://two.example/"])
    monkeypatch.setenv("http_proxy", "http://10.255.255.1:3128")
    monkeypatch.setattr(socket, "create_connection", swallowed)
    with pytest.raises(DataError, match="check the network"):
        ml(**SHORT)
    assert sum(waited) < 5
