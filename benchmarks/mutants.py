"""How many small mistakes do the tests notice? Each mutant of cosmic-ray in turn, on a copy of this tree.

    pip install cosmic-ray
    python benchmarks/mutants.py                               # all of the files below: a day
    python benchmarks/mutants.py --sample 300                  # 300 of their mutants, drawn by `--seed`
    python benchmarks/mutants.py replay/sumtree.py --shown     # one file, and the survivors' changes

A mutant is first given to the tests of its own file (`replay/spec.py`: `tests/replay/test_spec.py`), and if
they pass, to those of its folder. Annotations are left out: nothing looks at them. Survivors that change
nothing that can be observed are listed with the reason in `mutants.toml`, by their new line.
"""

from __future__ import annotations

import argparse
import ast
import collections
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[1]
# What was asked for: the data, the strategies, the learner, and what is on disk.
SUBJECTS = (
    "replay/*.py",
    "agents/continual/*.py",
    "launcher/learn/learner.py",
    "launcher/learn/updates.py",
    "launcher/learn/finite.py",
    "launcher/record/checkpoint.py",
)
SECONDS = 300  # Of a mutant that never ends.


class Mutant(NamedTuple):
    """One change, and what became of it."""

    file: str
    line: int
    operator: str
    before: str
    after: str
    survived: bool


def main() -> None:
    """Copy the tree, make the mutants, run the tests on each, and print a table."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    words.add_argument("files", nargs="*")
    words.add_argument("--sample", type=int, help="so many mutants of all")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument(
        "--jobs", type=int, default=1, help="copies of the tree, each with a process"
    )
    words.add_argument("--shown", action="store_true", help="print the change of each survivor")
    said = words.parse_args()
    files = said.files or sorted(
        str(path.relative_to(HERE)) for pattern in SUBJECTS for path in HERE.glob(pattern)
    )
    with tempfile.TemporaryDirectory() as scratch:
        drawn = draw(Path(scratch), files, said.sample, said.seed)
        shares = [drawn[job :: said.jobs] for job in range(said.jobs)]
        with ThreadPoolExecutor(said.jobs) as pool:
            tried = [
                mutant
                for share in pool.map(
                    lambda job: attempt(Path(scratch) / str(job), shares[job]), range(said.jobs)
                )
                for mutant in share
            ]
    print_table(tried, shown=said.shown)


def draw(
    scratch: Path, files: list[str], sample: int | None, seed: int
) -> list[tuple[str, str, int]]:
    """(file, operator, occurrence) of the mutants of some files that are no annotations."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import WorkDB, use_db

    drawn = []
    with use_db(str(scratch / "mutants.sqlite"), WorkDB.Mode.create) as found:
        init([HERE / file for file in files], found, {})
        annotated = {file: annotations(HERE / file) for file in files}
        for item in found.work_items:
            (mutation,) = item.mutations
            file = str(Path(mutation.module_path).relative_to(HERE))
            if not any(start <= mutation.start_pos < end for start, end in annotated[file]):
                drawn.append((file, mutation.operator_name, mutation.occurrence))
    drawn.sort()
    random.Random(seed).shuffle(drawn)
    return drawn[:sample]


def annotations(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the annotations of a module begin and end, as (line, column)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if part is not None:
                found.append(
                    ((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset))
                )
    return found


def attempt(tree: Path, mutants: list[tuple[str, str, int]]) -> list[Mutant]:
    """Run the tests on each mutant, in a copy of the tree of its own."""
    from cosmic_ray.mutating import apply_mutation
    from cosmic_ray.plugins import get_operator

    left_out = shutil.ignore_patterns(
        ".git", "__pycache__", "runs", ".pytest_cache", ".types", "*.egg-info"
    )
    shutil.copytree(HERE, tree, ignore=left_out)
    for tests in {tuple(tests) for file, *_ in mutants for tests in tests_of(file)}:
        assert passes(tree, list(tests)), f"{tests} fail before anything is changed"
    tried = []
    for file, operator, occurrence in mutants:
        path = tree / file
        before = path.read_text()
        apply_mutation(path, get_operator(operator)(), occurrence)
        after = path.read_text()
        changed = [
            n
            for n, (a, b) in enumerate(zip(before.splitlines(), after.splitlines(), strict=False))
            if a != b
        ]
        line = changed[0] if changed else 0
        survived = all(passes(tree, tests) for tests in tests_of(file))
        path.write_text(before)
        tried.append(
            Mutant(
                file,
                line + 1,
                operator.removeprefix("core/"),
                before.splitlines()[line].strip(),
                (after.splitlines()[line : line + 1] or [""])[0].strip(),
                survived,
            )
        )
        mark = "survived" if survived else "killed"
        print(f"{mark:8}  {file}:{line + 1}  {tried[-1].before}  ->  {tried[-1].after}", flush=True)
    return tried


def tests_of(file: str) -> list[list[str]]:
    """The tests of a file, and those of its folder."""
    path = Path(file)
    own = Path("tests") / path.parent / f"test_{path.name}"
    folder = str(own.parent)
    return [[str(own)], [folder]] if (HERE / own).exists() else [[folder]]


def passes(tree: Path, tests: list[str]) -> bool:
    """Whether some tests pass on a tree; one that takes too long has failed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *tests,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def print_table(tried: list[Mutant], *, shown: bool) -> None:
    """Killed and survived by file; survivors without a reason, and what changed in them."""
    reasons = tomllib.loads((HERE / "benchmarks" / "mutants.toml").read_text())
    files = collections.defaultdict(list)
    for mutant in tried:
        files[mutant.file].append(mutant)
    print("\n| file | mutants | killed | survived with a reason | without |\n|---|---|---|---|---|")
    for file, mutants in sorted(files.items()):
        print(f"| {file} | {' | '.join(map(str, counts(mutants, reasons)))} |")
    total = counts(tried, reasons)
    print(
        f"| all | {' | '.join(map(str, total))} |\n\nkilled: {100 * total[1] / max(1, total[0]):.1f} %"
    )
    if shown:
        for mutant in tried:
            if mutant.survived:
                reason = reasons.get(mutant.file, {}).get(mutant.after, "no reason")
                print(f"\n{mutant.file}:{mutant.line} ({mutant.operator}; {reason})")
                print("\n".join(list(difflib.ndiff([mutant.before], [mutant.after]))))


def counts(mutants: list[Mutant], reasons: dict[str, dict[str, str]]) -> tuple[int, int, int, int]:
    """(mutants, killed, survived with a reason, survived without)."""
    survivors = [mutant for mutant in mutants if mutant.survived]
    known = sum(mutant.after in reasons.get(mutant.file, {}) for mutant in survivors)
    return len(mutants), len(mutants) - len(survivors), known, len(survivors) - known


if __name__ == "__main__":
    main()
