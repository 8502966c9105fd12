"""Search: finds a learning rate for rehearsal in suite A, on rows and tasks that the result is not judged by.

    python benchmarks/search.py [--data ../shared/data] [--rows er derpp] [--trials 12] [--seeds 0 1 2]

Split-MNIST with a memory of 500, as in Buzzega et al. (2020); only the learning rate is unknown. Each trial
learns the first three tasks (Chaudhry et al., 2019), with a tenth of their training rows held out, and is
judged by its accuracy on those rows. The rate that is found is then run on all five tasks and all training
rows with several seeds, and judged by the test rows, which the search has never seen. It fails if a mean is
more than a point below the published one, whose rate was chosen by a grid.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = {"er": (86.12, 0.1), "derpp": (91.00, 0.03)}  # Accuracy in percent, learning rate.
RANGE = "lr=log(1e-3,0.5)"
_MODEL = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from benchmarks.plain.rehearsal import MLP


class Model(MLP):
    def __init__(self, out_features):
        super().__init__(out_features)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rows", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    ahead = True
    for row in asked.rows:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "model.py").write_text(_MODEL)
            ahead &= compare(row, Path(folder), asked.data.resolve(), asked.trials, asked.seeds)
    sys.exit(0 if ahead else 1)


def compare(row: str, folder: Path, data: Path, trials: int, seeds: list[int]) -> bool:
    """Search, run what is found, print both; returns whether it is at most a point below the paper."""
    words = [f"task=continual/split_mnist_{row}", "model=model.py:Model", f"data_dir={data}"]
    words += ["plot=false", "threads=1"]
    began = time.perf_counter()
    search = ["search=tpe", f"trials={trials}", "search_tasks=3", "validation=0.1", RANGE]
    said = ml("-m", *search, "experiment=search", *words, folder=folder)
    seconds = time.perf_counter() - began
    (pasted,) = [line for line in said.splitlines() if line.startswith("  ml ")]
    (rate,) = [word for word in pasted.split() if word.startswith("lr=")]
    best = next(line for line in said.splitlines() if line.startswith("Best of "))
    accuracies = []
    for seed in seeds:
        ml(*words, rate, f"seed={seed}", f"path=final/{seed}", folder=folder)
        status = json.loads((folder / "final" / str(seed) / "status.json").read_text())
        accuracies.append(100 * status["metrics"]["accuracy"])
    published, theirs = PUBLISHED[row]
    mean = statistics.mean(accuracies)
    each = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    print(f"{row}: {best} {rate} ({seconds:.0f} s)")
    print(
        f"  five tasks, test rows: {mean:.2f} ({each}); published {published} with lr={theirs}",
        flush=True,
    )
    return mean >= published - 1


def ml(*words: str, folder: Path) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "antelope", *words]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ran.stderr}")
    return ran.stdout


if __name__ == "__main__":
    main()
