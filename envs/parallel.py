"""Works on the blocks of a list with all cores: in copies of this process, or in threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_pipes
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch

from ..replay import DataError

Result = TypeVar("Result")
_AHEAD = 2  # Blocks that a worker has at once: it never waits for the next one.


def by_all_cores(
    work: Callable[[int], Result], blocks: Sequence[int], *, cores: int | None = None
) -> Generator[tuple[int, Result], None, None]:
    """Yields `(block, work(block))` in the order in which they are finished.

    Python runs one thread at a time, and half of the time for a small picture is spent in Python; so where a
    process can start as a copy of this one (Linux), each core has its own. As in a DataLoader, copies never
    touch a GPU, whose state cannot be copied. They end when this process does, however that happens.

    Args:
        work: Called in the workers; the results are pickled.
        blocks: What it is called with.
        cores: Number of workers; None: the cores that this process may use.

    Raises:
        DataError: If a worker dies, killed for its memory, say.
    """
    cores = min(available_cores() if cores is None else cores, len(blocks))
    if cores < 2:
        for block in blocks:
            yield block, work(block)
    elif sys.platform == "linux" and not multiprocessing.current_process().daemon:
        yield from _in_copies(work, blocks, cores)
    else:  # A daemon must not start processes.
        yield from _in_threads(work, blocks, cores)


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_threads(
    work: Callable[[int], Result], blocks: Sequence[int], cores: int
) -> Generator[tuple[int, Result], None, None]:
    left = iter(blocks)
    running: dict[Future[Result], int] = {}
    pool = ThreadPoolExecutor(cores)
    try:
        while True:
            # Not all at once: an interrupt would have to wait for them.
            while len(running) < _AHEAD * cores and (block := next(left, None)) is not None:
                running[pool.submit(work, block)] = block
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _in_copies(
    work: Callable[[int], Result], blocks: Sequence[int], cores: int
) -> Generator[tuple[int, Result], None, None]:
    context = multiprocessing.get_context("fork")
    workers: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(cores):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(
                target=_worker, args=(work, theirs, [ours, *workers]), daemon=True
            )
            with warnings.catch_warnings():
                # Python 3.12 warns of threads, whose locks a copy inherits: a copy takes none of them.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            workers[ours] = process
        yield from _shared_out(blocks, workers)
    finally:
        for pipe, process in workers.items():
            pipe.close()
            process.terminate()
        for process in workers.values():
            process.join()


def _shared_out(
    blocks: Sequence[int], workers: dict[Connection, BaseProcess]
) -> Generator[tuple[int, Result], None, None]:
    left = iter(blocks)
    given: dict[Connection, list[int]] = {pipe: [] for pipe in workers}
    while True:
        for _ in range(_AHEAD):
            for pipe, own in given.items():
                if len(own) < _AHEAD and (block := next(left, None)) is not None:
                    with contextlib.suppress(OSError):  # It has ended: receiving says how.
                        pipe.send(block)
                    own.append(block)
        if not any(given.values()):
            return
        ready = wait_for_pipes([pipe for pipe, own in given.items() if own])
        for pipe in [pipe for pipe in given if pipe in ready]:
            try:
                result = pipe.recv()
            except (EOFError, OSError) as error:
                workers[pipe].join()
                raise DataError(
                    f"A process that decoded pictures has ended (exit code {workers[pipe].exitcode}; -9 "
                    "means killed, usually for lack of memory). Start again: what is decoded is kept."
                ) from error
            if isinstance(result, BaseException):
                raise result
            yield given[pipe].pop(0), result


def _worker(work: Callable[[int], object], pipe: Connection, others: Sequence[Connection]) -> None:
    """Work on blocks from a pipe until it is closed: by this process's parent, or by its death."""
    # The copies of the other ends would keep the pipes open.
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    torch.set_num_threads(1)  # Threads are not copied; torch would wait for them for ever.
    while True:
        try:
            block = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result = work(block)
        except Exception as error:
            result = error
        try:
            pipe.send(result)
        except OSError:
            return
