"""What a sweep costs beyond its runs: `python benchmarks/sweeps.py [RUNS] [JOBS]`.

CPU seconds of RUNS tiny runs (8), first one after another in one process that has imported torch, then as a
sweep on JOBS workers (2). A sweep may cost 1.3 times the runs, and an import of torch for each worker.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

WORDS = ["train_steps=200", "plot=false", "progress=false"]
ALONE = """
import os, sys, time
import torch
imported = time.process_time()
from antelope import ml
ml(*sys.argv[2:], seed=1000)  # What the first run alone pays: further imports.
first = time.process_time()
for seed in range(int(sys.argv[1])):
    ml(*sys.argv[2:], seed=seed)
print(imported, first - imported, time.process_time() - first)
"""
SWEEP = "from antelope.launcher.ml import main; main()"


def cpu(code: str, *words: str) -> tuple[float, str]:
    """CPU seconds of a Python process and its children, and what it printed."""
    before = os.times()
    out = subprocess.run(
        [sys.executable, "-c", code, *words], check=True, text=True, capture_output=True
    ).stdout
    after = os.times()
    used = after.children_user + after.children_system
    return used - before.children_user - before.children_system, out


def main(runs: int, jobs: int) -> None:
    """Measure both, and print them as a table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _, out = cpu(ALONE, str(runs), *WORDS, "experiment=alone")
        imported, first, alone = map(float, out.split())
        swept, _ = cpu(SWEEP, "-m", f"seed=range({runs})", f"jobs={jobs}", *WORDS)
        skipped, _ = cpu(SWEEP, "-m", f"seed=range({runs})", f"jobs={jobs}", *WORDS, "resume=true")
    allowed = 1.3 * alone + jobs * (imported + first)
    print(f"| CPU seconds | {runs} runs, {jobs} workers |")
    print("|---|---|")
    print(f"| import of torch, and what the first run imports | {imported + first:.2f} |")
    print(f"| the runs, one after another | {alone:.2f} |")
    print(f"| the sweep | {swept:.2f} |")
    print(f"| allowed: 1.3 times the runs and an import a worker | {allowed:.2f} |")
    print(f"| the sweep again, all finished | {skipped:.2f} |")
    if swept > allowed:
        sys.exit("The sweep costs too much.")


if __name__ == "__main__":
    main(*map(int, [*sys.argv[1:], "8", "2"][:2]))
