"""Nine rows of the fault matrix, for Antelope and for the peers that are installed; see benchmarks/faults.py.

All train the same network on the same digits (benchmarks/plain/digits_*.py), save once per epoch, keep three
checkpoints, and resume as their documentation says. Every run is a process of its own. A server of each
framework, `python benchmarks/interrupted.py NAME`, forks them, so that they need not all import torch.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parents[1]
PEERS = ("antelope", "lightning", "transformers")
_ROWS, _HELD_OUT = 1437, 360  # Those of the digits.
_EPOCH = 23  # Steps, with batches of 64.
_KILLS = 5
_SLOW = {"pause_s": 0.01}
_RUN_FILES = ("began.json", "result.json", "error.json")


class Outcome(NamedTuple):
    """How a run ended. `began`: its first step; None: it never learnt."""

    code: int
    seconds: float
    began: int | None
    result: dict[str, Any]
    error: str
    output: str


class Verdict(NamedTuple):
    """Whether a row held, and what happened."""

    held: bool
    what: str


# ----------------------------------------------------------------------------- in the server


def serve(name: str) -> None:
    """Answer each line, `{"folder", "options", "watch", "kill_after_s"}`, with `[exit code, seconds]`."""
    sys.path.insert(0, str(HERE))
    import torch

    from benchmarks.plain.digits import Options, Watch

    torch.set_num_threads(1)
    module = importlib.import_module(f"benchmarks.plain.digits_{name}")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        module.train(Options(epochs=1), Watch())  # Imports what is imported late.
    print(json.dumps([module.NAME, module.CHECKPOINTS, module.GUARD]), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began = time.monotonic()
        if (pid := os.fork()) == 0:
            _run(module, job)
        if (delay := job["kill_after_s"]) is not None:
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - began]), flush=True)


def _run(module: Any, job: dict[str, Any]) -> None:
    """The forked process: never returns."""
    from benchmarks.plain.digits import Options, Watch

    os.chdir(job["folder"])
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # What the server has warned of, Python would not repeat.
    warnings.simplefilter("always")
    code = 1
    try:
        module.train(Options(**job["options"]), Watch(**job["watch"]))
        code = 0
    except BaseException as error:
        traceback.print_exc()
        Path("error.json").write_text(json.dumps(f"{type(error).__name__}: {error}"))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# ---------------------------------------------------------------------------- in the benchmark


class Peer:
    """One framework. Its runs take place in `folder`."""

    def __init__(self, name: str, folder: Path):
        self.folder = folder / name
        self.saved = folder / f"{name}-saved"
        self.process = subprocess.Popen(
            [sys.executable, "-B", __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        assert self.process.stdout is not None
        # Libraries print, too, while they are imported.
        self.name, self.checkpoints, self.guard = next(
            json.loads(line) for line in self.process.stdout if line.startswith('["')
        )

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def run(
        self, *, fresh: bool = True, kill_after_s: float | None = None, **options: Any
    ) -> Outcome:
        """Train in an empty folder, or go on in that of the run before.

        Args:
            options: `pause_s`, `kill_step` and `nan_step` go to `Watch`, the others to `Options`.
        """
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        for name in _RUN_FILES:
            (self.folder / name).unlink(missing_ok=True)
        watched = ("pause_s", "kill_step", "nan_step")
        job = {
            "folder": str(self.folder),
            "options": {key: value for key, value in options.items() if key not in watched},
            "watch": {key: value for key, value in options.items() if key in watched},
            "kill_after_s": kill_after_s,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(job), file=self.process.stdin, flush=True)
        code, seconds = json.loads(self.process.stdout.readline())
        began, result, error = (self._read(name) for name in _RUN_FILES)
        output = (self.folder / "output.txt").read_text(errors="replace")
        return Outcome(code, seconds, began, result or {}, error or "", output)

    def _read(self, name: str) -> Any:
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.folder / name).read_text())
        return None

    def interrupt(self) -> None:
        """Save a run that was killed in its sixth epoch, for `restore`."""
        self.run(kill_step=5 * _EPOCH + 9)
        shutil.rmtree(self.saved, ignore_errors=True)
        shutil.copytree(self.folder, self.saved, symlinks=True)

    def restore(self) -> list[Path]:
        """Put the interrupted run back. Returns the files of its newest checkpoint."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.saved, self.folder, symlinks=True)
        return self.newest()

    def newest(self) -> list[Path]:
        """The files of the newest checkpoint."""
        found = max(
            self.folder.glob(self.checkpoints), key=lambda path: (len(path.name), path.name)
        )
        return sorted(found.iterdir()) if found.is_dir() else [found]


def killed(peer: Peer) -> Verdict:
    """Row 1: `kill -9` at random moments."""
    straight, draw = peer.run(**_SLOW), random.Random(0)
    again: list[str] = []
    for _ in range(_KILLS):
        peer.run(**_SLOW, kill_after_s=draw.uniform(0.3, 0.95) * straight.seconds)
        resumed = peer.run(**_SLOW, fresh=False)
        if resumed.code:
            again.append(f"stopped ({resumed.error.partition(':')[0]})")
        else:
            same = resumed.result["weights"] == straight.result["weights"]
            again.append("same weights" if same else "other weights than uninterrupted")
    return Verdict(set(again) == {"same weights"}, _counted(again))


def _damaged(peer: Peer, damages: Callable[[Path], Iterator[Callable[[], object]]]) -> Verdict:
    """The interrupted run resumed after each damage to each file of its newest checkpoint."""
    peer.interrupt()
    names = [file.name for file in peer.restore()]
    whole = peer.run(fresh=False)
    again: list[str] = []
    for name in names:
        for number in range(len(list(damages(Path(name))))):
            (file,) = [file for file in peer.restore() if file.name == name]
            list(damages(file))[number]()
            again.append(_resumed(peer.run(fresh=False), whole))
    good = {"the checkpoint before it", "unharmed"}
    return Verdict(set(again) <= good, _counted(again))


def _resumed(run: Outcome, whole: Outcome) -> str:
    """What became of a run that was resumed from a damaged checkpoint.

    Args:
        whole: The same, resumed from the undamaged one.
    """
    if run.code:
        return f"stopped ({run.error.partition(':')[0]})"
    if run.began == 0:
        return "started over"
    if run.began != whole.began:
        return "the checkpoint before it"
    if run.result["weights"] == whole.result["weights"]:
        return "unharmed"
    return "other weights than from the whole checkpoint"


def truncated(peer: Peer) -> Verdict:
    """Row 4: each file cut at 0, 10, 50 and 99 %."""

    def damages(file: Path) -> Iterator[Callable[[], object]]:
        for share in (0, 0.1, 0.5, 0.99):
            yield lambda share=share: os.truncate(file, int(file.stat().st_size * share))

    return _damaged(peer, damages)


def flipped(peer: Peer) -> Verdict:
    """Row 5: single bits of each file."""

    def flip(file: Path, seed: int) -> None:
        data, draw = bytearray(file.read_bytes()), random.Random(seed)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)

    def damages(file: Path) -> Iterator[Callable[[], object]]:
        for seed in range(5):
            yield lambda seed=seed: flip(file, seed)

    return _damaged(peer, damages)


def lost(peer: Peer) -> Verdict:
    """Row 6: each file removed."""

    def damages(file: Path) -> Iterator[Callable[[], object]]:
        yield file.unlink

    return _damaged(peer, damages)


def without_checkpoint(peer: Peer) -> Verdict:
    """Row 8: `resume` where there is nothing yet."""
    run = peer.run()
    if run.code:
        return Verdict(False, f"stopped ({run.error.partition(':')[0]})")
    said = "no checkpoint" in run.output.lower() or "no last checkpoint" in run.output.lower()
    return Verdict(run.began == 0, f"starts, and says {'so' if said else 'nothing'}")


def another_model(peer: Peer) -> Verdict:
    """Row 9: resumed with another width, and with other names of parameters."""
    peer.interrupt()
    held, what = [], []
    for word, settings in (("another width", {"hidden": 16}), ("other names", {"kind": "renamed"})):
        peer.restore()
        run = peer.run(fresh=False, **settings)
        named = any(f"{key}.0.weight" in run.error for key in ("layers", "body"))
        held.append(bool(run.code) and run.began is None and named)
        if run.code:
            when = "before training" if run.began is None else "while training"
            how = "keys named" if named else run.error.partition(":")[0]
            what.append(f"{word}: refused {when} ({how})")
        else:
            what.append(f"{word}: trains on from step {run.began}")
    return Verdict(all(held), "; ".join(what))


def not_a_number(peer: Peer) -> Verdict:
    """Row 16: the loss is NaN at step 50, and with it every weight after."""
    held, what = [], []
    for guard in (False, True) if peer.guard else (False,):
        run = peer.run(nan_step=50, **({"guard": True} if guard else {}))
        finite = all(map(_finite, peer.newest()))
        early = bool(run.code) or run.result["rows"] < 8 * _ROWS
        held.append(bool(run.code) and finite)
        with_guard = f"with {peer.guard}: " if guard else ""
        end = f"stopped ({run.error.partition(':')[0]})" if run.code else "ends with exit code 0"
        saved = "good" if finite else "NaN"
        what.append(
            f"{with_guard}{end}{'' if early else ' after all epochs'}, newest checkpoint {saved}"
        )
    return Verdict(any(held), "; ".join(what))


def _finite(file: Path) -> bool:
    """Whether all weights in a file of a checkpoint are finite; true for a file that holds none."""
    import torch
    from safetensors.torch import load_file

    if file.name == "model.safetensors":
        weights = load_file(file)
    elif file.suffix == ".ckpt":
        weights = torch.load(file, weights_only=False)["state_dict"]
    else:
        return True
    return all(bool(tensor.isfinite().all()) for tensor in weights.values())


def last_batch_of_one(peer: Peer) -> Verdict:
    """Row 23: 1,025 rows in batches of 64, with BatchNorm."""
    data: dict[str, Any] = {"rows": 1025, "kind": "norm", "epochs": 2}
    run = peer.run(**data)
    if run.code == 0:
        rows, evaluated = run.result["rows"] // 2, run.result["evaluated"]
        held = rows == 1025 and evaluated == _HELD_OUT
        return Verdict(
            held,
            f"{rows:,} of 1,025 rows learnt per epoch, {evaluated} of {_HELD_OUT} evaluated",
        )
    what = f"stopped ({run.error.partition(':')[0]})"
    dropped = peer.run(**data, drop_last=True)
    if dropped.code == 0:
        what += f"; dropping the last batch: {dropped.result['rows'] // 2:,} of 1,025 rows learnt"
    return Verdict(False, what)


def seeds(peer: Peer) -> Verdict:
    """Row 37: the same seed, another seed, and other intervals of log and evaluation."""
    runs = ({}, {}, {"seed": 1}, {"log_every": 3}, {"eval_every": 7})
    first, again, other, log, evaluation = (peer.run(**run).result["weights"] for run in runs)
    found = {
        "same seed": (first == again, "same", "differs"),
        "other seed": (first != other, "differs", "same"),
        "other log interval": (first == log, "same", "differs"),
        "other evaluation interval": (first == evaluation, "same", "differs"),
    }
    what = "; ".join(f"{key}: {yes if held else no}" for key, (held, yes, no) in found.items())
    return Verdict(all(held for held, _, _ in found.values()), what)


def _counted(found: list[str]) -> str:
    """`3 of 5: same weights; 2 of 5: stopped (OSError, ValueError)`."""
    counts = collections.Counter(what.partition(" (")[0] for what in found)
    errors = sorted({what.partition(" (")[2][:-1] for what in found if what.startswith("stopped")})
    parts = []
    for what, count in counts.most_common():
        why = f" ({', '.join(errors)})" if what == "stopped" else ""
        parts.append(f"{count} of {len(found)}: {what}{why}")
    return "; ".join(parts)


ROWS: dict[int, Callable[[Peer], Verdict]] = {
    1: killed,
    4: truncated,
    5: flipped,
    6: lost,
    8: without_checkpoint,
    9: another_model,
    16: not_a_number,
    23: last_batch_of_one,
    37: seeds,
}


if __name__ == "__main__":
    serve(sys.argv[1])
