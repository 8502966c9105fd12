"""The fault matrix: what can go wrong with a run, what must happen then, and whether it does.

    python benchmarks/faults.py                       # all rows, and nine of them with the peers
    python benchmarks/faults.py --rows 1 4 --no-peers
    pip install lightning transformers accelerate     # the peers

A row holds if all tests marked `@pytest.mark.row(NUMBER)` pass. Rows that make sense for any trainer are also
run with Lightning and the Trainer of transformers, if they are installed, and with Antelope: the same network
and data, each one's own checkpoints (benchmarks/interrupted.py).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.util
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
# By row: the fault, and what must happen.
FAULTS: dict[int, tuple[str, str]] = {
    1: ("`kill -9` at any moment, also within a save", "resumes to the same bits"),
    2: (
        "the same with a frame stack, n-step returns, EMA, a scheduler, bf16",
        "resumes to the same bits",
    ),
    3: (
        "SIGTERM, SIGHUP or SIGINT, also repeated or in a thread",
        "finishes the step, saves once, exits with 143, 129, 130",
    ),
    4: ("newest checkpoint truncated", "named; the one before it continues"),
    5: ("one bit of it flipped", "named; the one before it continues"),
    6: ("one of its files missing", "named; the one before it continues"),
    7: ("all checkpoints damaged", "stops and lists them; `resume=force` starts over"),
    8: ("`resume=true` without a checkpoint", "starts, and says so"),
    9: ("checkpoint of another model", "refused before training; keys and shapes named"),
    10: ("resumed with other settings", "said, or refused without `override=`"),
    11: ("checkpoint of another version of Antelope", "older ones resume, newer ones are refused"),
    12: (
        "disk full during a save",
        "goes on, older checkpoints whole; ends with 1 after `save_patience`",
    ),
    13: ("run directory cannot be written", "exits with 2 before data is read"),
    14: ("two runs in one directory", "the second is refused; `kill -9` frees the lock"),
    15: ("deleting an old checkpoint is interrupted", "the newer ones are whole"),
    16: (
        "NaN in loss, gradients, weights",
        "exits with 3; step, tensor and lr named; no such checkpoint",
    ),
    17: ("`learn` raises", "the user's frames, step and shapes; a crash checkpoint; exits with 1"),
    18: ("not a model, or one without `forward` and `learn`", "exits with 2; shows `learn`"),
    19: ("`learn` returns no usable loss", "exits with 2; the case named"),
    20: (
        "`__init__` needs an argument that cannot be inferred",
        "names the nearest that can, and lists all with their values",
    ),
    21: ("layers do not fit the data", "exits with 2 before training; layer and shapes named"),
    22: (
        "labels 1-based, negative, 10^9, beyond the classes or missing",
        "numbered, or refused by name",
    ),
    23: ("last batch has one row, with BatchNorm", "no such batch; every row learnt and evaluated"),
    24: ("fewer rows than a batch, none, one class, an empty task", "learnt from, or refused"),
    25: ("NaN, objects, ragged rows, grey and colour", "read, or refused by row"),
    26: ("data set misspelt, or no network to download it", "the nearest name; no hang"),
    27: ("download truncated, wrong or never answered", "removed, tried twice, exits with 1"),
    28: ("a worker of a data loader dies", ""),
    29: ("an environment raises or breaks its space", "environment, step and seed named"),
    30: ("one of several environments' processes dies", "named; the others end"),
    31: ("unknown setting, wrong type", "exits with 2 and the nearest, without importing torch"),
    32: ("the same words in another order", "the same configuration"),
    33: ("Python instead of the console", "the same configuration"),
    34: ("calls within calls, in threads, repeated", "the process is as it was before"),
    35: ("one run of a sweep fails", "the others go on; a table names it; exits with its code"),
    36: ("out of memory", "a smaller `batch_size` named, or found by `batch_size=auto`"),
    37: (
        "same seed, other seed, other intervals of log, evaluation and saves",
        "the same bits, except with another seed",
    ),
    38: ("checkpoints, configurations and presets that hold code", "refused; nothing is executed"),
    39: ("a tracker is down, missing or hangs", "the run goes on; one warning"),
    40: ("no terminal, no colours, no UTF-8, 40 columns", "a readable log"),
    41: ("clock jumps, no home directory", "the run goes on"),
    42: ("closed pipe or terminal", "the run goes on, without a traceback"),
    43: ("links at the names of a run's files", "refused; nothing outside is written"),
    44: ("`numpy.py` in the working directory or a run", "never imported"),
    45: (
        "NaN in buffers, in models that log nothing, in the last step",
        "exits with 3, named, not saved",
    ),
    46: ("secrets in settings", "in no file and no message"),
    47: ("data changed before a resumption", "refused without `override=data`"),
    48: ("CSV files lost rows, or hold bytes that are not text", "mended, or refused by name"),
    49: ("an environment hangs, or raises late", "`env_timeout`, `env_retry`; named"),
    50: ("ten million log rows, large replays", "memory stays bounded"),
    51: (
        "manifest that names `/dev/zero`, YAML bomb, huge picture",
        "refused before anything is read or decoded",
    ),
    52: ("run directory removed or replaced", "ends with 1, and says why"),
    53: ("model file in another encoding", "read as Python reads it"),
    54: ("one of two ranks dies", "exits with 1, the rank named; `resume=true` continues"),
}
# Rows without a test, with the reason.
UNTESTED = {
    28: "there are no such workers: a run reads, decodes and batches data in its own process",
}


def main() -> None:
    """Print the tables. Exits with 1 if a row does not hold for Antelope."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    words.add_argument("--rows", type=int, nargs="+", default=list(FAULTS))
    words.add_argument("--no-peers", action="store_true")
    words.add_argument("--no-tests", action="store_true")
    given = words.parse_args()
    held = True
    if not given.no_tests:
        held = print_matrix(given.rows)
    if not given.no_peers:
        held &= print_peers(given.rows)
    sys.exit(0 if held else 1)


class Marked:
    """A plugin for pytest: runs only the tests marked with one of `rows`, and keeps their outcomes."""

    def __init__(self, rows: list[int]):
        self.rows = set(rows)
        self.rows_of: dict[str, set[int]] = {}
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        kept = []
        for item in items:
            rows = {row for mark in item.iter_markers("row") for row in mark.args} & self.rows
            if rows:
                self.rows_of[item.nodeid] = rows
                kept.append(item)
        items[:] = kept

    def pytest_runtest_logreport(self, report: Any) -> None:
        ended = report.when == "call" or report.outcome != "passed"
        if ended and self.outcomes.get(report.nodeid) != "failed":
            self.outcomes[report.nodeid] = report.outcome

    def of(self, row: int, outcome: str) -> list[str]:
        """The names of a row's tests with this outcome."""
        return [
            name.rpartition("::")[2]
            for name, rows in self.rows_of.items()
            if row in rows and self.outcomes.get(name) == outcome
        ]


def print_matrix(rows: list[int]) -> bool:
    """Run the marked tests and print a line for each row. Returns whether all hold."""
    import pytest

    marked, text = Marked(rows), io.StringIO()
    os.chdir(HERE)
    with contextlib.redirect_stdout(text):
        pytest.main(["tests", "-q", "--tb=short", "-p", "no:cacheprovider"], plugins=[marked])
    print("| row | fault | what happens | |\n|---|---|---|---|")
    good = True
    for row in rows:
        fault, must = FAULTS[row]
        passed, failed = marked.of(row, "passed"), marked.of(row, "failed")
        if row in UNTESTED and not passed and not failed:
            print(f"| {row} | {fault} | {UNTESTED[row]} | - |")
            continue
        held = bool(passed) and not failed
        good &= held
        skipped = f", {len(found)} skipped" if (found := marked.of(row, "skipped")) else ""
        what = must if held else f"fails: {', '.join(failed[:3]) or 'no test ran'}"
        number = f"{len(passed)} of {len(passed) + len(failed)} tests{skipped}"
        print(f"| {row} | {fault} | {what} | {'held' if held else '**not held**'}: {number} |")
    if not good:
        print(text.getvalue()[-20_000:], file=sys.stderr)
    return good


def print_peers(rows: list[int]) -> bool:
    """Run the rows with every framework that is installed. Returns whether all hold for Antelope."""
    sys.path.insert(0, str(HERE))
    from benchmarks.interrupted import PEERS, ROWS, Peer

    found: dict[int, list[str]] = collections.defaultdict(list)
    names, good = [], True
    for peer in PEERS:
        if importlib.util.find_spec(peer) is None:
            print(f"\n{peer} is left out: not installed.")
            continue
        with tempfile.TemporaryDirectory() as folder:
            runs = Peer(peer, Path(folder))
            names.append(runs.name)
            for row in sorted(ROWS.keys() & set(rows)):
                verdict = ROWS[row](runs)
                good &= verdict.held or peer != "antelope"
                found[row].append(f"{'held' if verdict.held else '**not held**'}: {verdict.what}")
            runs.close()
    print(f"\n| row | fault | {' | '.join(names)} |\n|---|---{'|---' * len(names)}|")
    for row, verdicts in sorted(found.items()):
        print(f"| {row} | {FAULTS[row][0]} | {' | '.join(verdicts)} |")
    return good


if __name__ == "__main__":
    main()
