"""How many small mistakes do the tests notice? Mutants by cosmic-ray, each in a copy of this tree.

    pip install cosmic-ray
    python benchmarks/mutants.py --sample 300                  # 300 mutants, drawn by `--seed`
    python benchmarks/mutants.py                               # all of the files below: days
    python benchmarks/mutants.py replay/sumtree.py --shown     # one file, and the survivors' changes

The tests run unchanged first: how long does each take, and which functions does it enter? A mutant is
then given to the tests that enter its function: those of its own file (`replay/spec.py`:
`tests/replay/test_spec.py`), then the quickest of the others, up to `BUDGET` seconds. It is killed when one
of them fails or takes far longer than before. Tests of more than `LONGEST` seconds take no part. Each run is
a process forked from this one, which has imported PyTorch. `--measured FILE` keeps what was measured.

Annotations, messages of errors and what only a type checker reads are not changed: no test should look at
them. Survivors that nobody can tell from the original are listed with the reason in `mutants.toml`, by their
new line.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import difflib
import gc
import importlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parents[1]
# The data, the strategies, the learner, and what is on disk.
SUBJECTS = (
    "replay/*.py",
    "agents/continual/*.py",
    "launcher/learn/learner.py",
    "launcher/learn/updates.py",
    "launcher/learn/finite.py",
    "launcher/learn/nan.py",
    "launcher/learn/watchdog.py",
    "launcher/record/checkpoint.py",
    "launcher/record/tensor_file.py",
    "launcher/record/packing.py",
    "launcher/record/column_blocks.py",
)
# Where more tests of a folder's files are than in the folder of the same name.
ELSEWHERE = {
    "launcher/learn": ["tests/faults/test_not_a_number.py"],
    "launcher/record": [
        "tests/faults/test_foreign_files.py",
        "tests/faults/test_foreign_state.py",
        "tests/faults/test_older_checkpoints.py",
    ],
}
# Imported once, before all forks: most of what a test run waits for.
IMPORTED = (
    "torch",
    "torchvision",
    "gymnasium",
    "hypothesis.extra.numpy",
    "omegaconf",
    "safetensors.torch",
    "matplotlib.figure",
    "cosmic_ray.mutating",
)
LONGEST = 1.0  # CPU seconds of one test.
BUDGET = 15.0  # CPU seconds of the tests of a mutant from other files than its own, unchanged.
MEMORY = 16 << 30  # Bytes that a mutant may ask for, and of a file it writes.


class Mutant(NamedTuple):
    """One change: the `occurrence`-th of an operator in a file, in a function or (None) outside of all."""

    file: str
    operator: str
    occurrence: int
    function: int | None  # Its first line.


class Tried(NamedTuple):
    """What became of a mutant."""

    file: str
    line: int
    operator: str
    before: str
    after: str
    survived: bool


class Test(NamedTuple):
    """How long a test takes unchanged, and the functions it enters, as "FILE:FIRST LINE"."""

    name: str
    seconds: float
    functions: frozenset[str]


def main() -> None:
    """Copy the tree, measure the tests, run them on each mutant, and print a table."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    words.add_argument("files", nargs="*")
    words.add_argument("--sample", type=int, help="so many mutants of all")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--minutes", type=float, default=math.inf, help="no mutant after so many")
    words.add_argument("--measured", type=Path, help="what the tests took: read, or written")
    words.add_argument("--shown", action="store_true", help="print the change of each survivor")
    said = words.parse_args()
    files = said.files or sorted(
        str(path.relative_to(HERE)) for pattern in SUBJECTS for path in HERE.glob(pattern)
    )
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()  # What is imported now is not searched for garbage, nor copied, in each fork.
    with tempfile.TemporaryDirectory() as scratch:
        tree = copied(Path(scratch))
        tests = measured(tree, files, said.measured)
        drawn = [mutant for file in files for mutant in mutants(file)]
        random.Random(said.seed).shuffle(drawn)
        end = time.monotonic() + 60 * said.minutes
        tried = []
        for mutant in drawn[: said.sample]:
            if time.monotonic() < end:
                tried += attempt(tree, mutant, tests)
    print_table(tried, len(drawn), shown=said.shown)


def copied(scratch: Path) -> Path:
    """The tree whose files are changed; the processes that tests start import it too."""
    tree = scratch / "tree"
    left_out = shutil.ignore_patterns(
        ".git", "__pycache__", "runs", ".pytest_cache", ".types", "*.egg-info"
    )
    shutil.copytree(HERE, tree, ignore=left_out)
    os.environ.update(
        PYTHONPATH=str(tree),
        TMPDIR=str(scratch),
        OMP_NUM_THREADS="1",
        MPLBACKEND="agg",
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",  # Those of other packages take longer than most tests.
    )
    return tree


# ---- Tests


def measured(tree: Path, files: list[str], kept: Path | None) -> list[Test]:
    """The tests that pass unchanged and soon enough, with what they take and enter."""
    found = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    names = set()
    for folder in {str(Path(file).parent) for file in files}:
        own = (tree / "tests" / folder).rglob("test_*.py")
        names |= {*ELSEWHERE.get(folder, []), *(str(path.relative_to(tree)) for path in own)}
    for name in sorted(names):
        if name not in found:
            found[name] = stopped(tree, tree / name)
            print(f"{len(found[name]):5} tests  {name}", flush=True)
            if kept is not None:
                kept.write_text(json.dumps(found))
    return [
        Test(name, seconds, frozenset(entered))
        for tests in found.values()
        for name, (seconds, entered) in tests.items()
    ]


def stopped(tree: Path, path: Path) -> dict[str, tuple[float, list[str]]]:
    """Seconds and functions of the tests of one file, by their names."""
    answer = tree.parent / "measured.json"
    answer.write_text("{}")

    def measure() -> int:
        stopwatch = Stopwatch(tree)
        status = pytest.main(arguments(tree, [path], ["-m", "not slow"]), [stopwatch])
        answer.write_text(json.dumps(stopwatch.found()))
        return int(status)

    forked(measure, tree, 900)
    return json.loads(answer.read_text())


class TooLong(BaseException):
    """A test takes longer than it may; no `except Exception` keeps this error."""


class Stopwatch:
    """A plugin of pytest that measures tests, and ends those that take too long."""

    # By the CPU, and by the clock for what waits: many times as long, on a machine that is busy.
    ALARMS = (
        (signal.SIGPROF, signal.ITIMER_PROF, LONGEST),
        (signal.SIGALRM, signal.ITIMER_REAL, 15 * LONGEST),
    )

    def __init__(self, tree: Path) -> None:
        self.tree = f"{tree}/"
        self.codes: set[CodeType] = set()  # Of the functions that the test entered.
        self.shared: dict[str, set[CodeType]] = collections.defaultdict(
            set
        )  # By file: of fixtures.
        self.took: dict[str, float] = {}
        self.entered: dict[str, set[CodeType]] = {}
        self.passed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.codes = set()
        threading.settrace(self.enter)
        sys.settrace(self.enter)
        began = cpu_seconds()
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]  # As its documentation has it.
            self.took[item.nodeid] = cpu_seconds() - began
            self.entered[item.nodeid] = self.codes

    # An error raised in these two is one of the test; in pytest's own code it would end all tests.

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        with self.alarmed():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        with self.alarmed():
            return (yield)

    @contextlib.contextmanager
    def alarmed(self) -> Iterator[None]:
        """Inside, `TooLong` is raised after a while."""
        for number, clock, seconds in self.ALARMS:
            signal.signal(number, self.alarm)
            signal.setitimer(clock, seconds)
        try:
            yield
        finally:
            for _, clock, _ in self.ALARMS:
                signal.setitimer(clock, 0)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest):
        # All tests of a file depend on a fixture that they share; only the first of them makes it.
        before = set(self.codes)
        result = yield
        if fixturedef.scope != "function":
            self.shared[request.node.nodeid.split("::")[0]] |= self.codes - before
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        elif not report.passed:
            self.passed.discard(report.nodeid)

    def enter(self, frame: FrameType, event: str, argument: object) -> None:
        """Called at every call of a function."""
        self.codes.add(frame.f_code)

    def alarm(self, number: int, frame: FrameType | None) -> None:
        raise TooLong

    def found(self) -> dict[str, tuple[float, list[str]]]:
        """Of the tests that passed: seconds and functions."""
        return {
            name: (
                seconds,
                sorted(
                    f"{code.co_filename.removeprefix(self.tree)}:{code.co_firstlineno}"
                    for code in self.entered[name] | self.shared[name.split("::")[0]]
                    if code.co_filename.startswith(self.tree)
                    and not code.co_filename.startswith(f"{self.tree}tests")
                ),
            )
            for name, seconds in self.took.items()
            if name in self.passed and seconds <= LONGEST
        }


def cpu_seconds() -> float:
    """What this process and its children have taken: on a busy machine the same as on an idle one."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in used)


class Only:
    """A plugin of pytest that runs only some tests."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.names]


def arguments(tree: Path, files: list[Path], further: list[str]) -> list[str]:
    """What pytest is called with."""
    # hypothesis was imported before pytest could rewrite its assertions.
    known = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    plugins = ["-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
    plain = ["-q", *plugins, *known, f"--rootdir={tree}"]
    return [*plain, f"--basetemp={tree.parent / 'basetemp'}", *further, *map(str, files)]


def forked(call: Callable[[], int], tree: Path, seconds: float) -> int | None:
    """The status of a call in a process of its own, or None if it takes longer than some seconds."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            log = os.open(tree.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.chdir(tree)
            sys.path[0] = str(tree)  # Instead of the folder of this file.
            status = call()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    found = 0, 0
    while found[0] == 0 and time.monotonic() < end:
        time.sleep(0.02)
        found = os.waitpid(process, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # With the processes that its tests started.
    if found[0] == 0:
        os.waitpid(process, 0)
        return None
    return os.waitstatus_to_exitcode(found[1])


# ---- Mutants


def mutants(file: str) -> list[Mutant]:
    """All changes of a file that a test could notice."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    source = (HERE / file).read_text()
    nodes = list(ast_nodes(get_ast(source)))
    tree = ast.parse(source)
    apart = list(left_out(tree))
    functions = [
        (min([node.lineno, *(part.lineno for part in node.decorator_list)]), node.end_lineno or 0)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    found = []
    for name in sorted(operator_names()):
        if get_operator(name).arguments() or name == "core/NoOp":
            continue
        operator = get_operator(name)()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            if not any(begin <= start < end for begin, end in apart):
                around = [first for first, last in functions if first <= start[0] <= last]
                found.append(Mutant(file, name, occurrence, max(around, default=None)))
    return found


def left_out(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations, messages, and what only a type checker reads begin and end: (line, column)."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        match node:
            case ast.arg() | ast.AnnAssign():
                parts = [node.annotation]
            case ast.FunctionDef():
                parts = [node.returns]
                if any(ast.unparse(mark).endswith("overload") for mark in node.decorator_list):
                    parts += [*node.decorator_list, node]
            case ast.Raise():
                parts = [node.exc]
            case ast.Assert():
                parts = [node.msg]
            case ast.Call() if ast.unparse(node.func) in ("warnings.warn", "cast"):
                parts = [*node.args]
            case ast.If() if ast.unparse(node.test) == "TYPE_CHECKING":
                parts = [node]
            case ast.Assign() if ast.unparse(node.targets[0]) in ("__all__", "__version__"):
                parts = [node]
        for part in parts:
            if isinstance(part, ast.expr | ast.stmt):
                yield (
                    (part.lineno, part.col_offset),
                    (part.end_lineno or 0, part.end_col_offset or 0),
                )


def attempt(tree: Path, mutant: Mutant, tests: list[Test]) -> list[Tried]:
    """Run the tests of a mutant; nothing where the change is none."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    path = tree / mutant.file
    before = path.read_text()
    after = mutate_code(before, get_operator(mutant.operator)(), mutant.occurrence)
    if after is None or after == before:
        return []
    began = time.monotonic()
    change(path, after)
    survived = not any(fail(tree, some) for some in tests_of(mutant, tests))
    change(path, before)
    old, new = before.splitlines(), after.splitlines()
    line = next(n for n, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1])
    tried = Tried(
        mutant.file,
        line + 1,
        mutant.operator.removeprefix("core/"),
        old[line].strip(),
        new[line].strip(),
        survived,
    )
    print(
        f"{'survived' if survived else 'killed':8} {time.monotonic() - began:5.1f} s"
        f"  {mutant.file}:{line + 1}  {tried.before}  ->  {tried.after}",
        flush=True,
    )
    return [tried]


def change(path: Path, text: str) -> None:
    """Rewrite a module and remove its bytecode, which Python would use if size and second are equal."""
    path.write_text(text)
    for stale in path.parent.glob(f"__pycache__/{path.stem}.*"):
        stale.unlink()


def tests_of(mutant: Mutant, tests: list[Test]) -> Iterator[list[Test]]:
    """Tests that enter the function of a mutant: those of its own file, and others while there is time.

    What is outside of all functions happens at the import: every test is one of it.
    """
    path = Path(mutant.file)
    own = str("tests" / path.parent / f"test_{path.name}")
    entering = [
        test
        for test in tests
        if mutant.function is None or f"{mutant.file}:{mutant.function}" in test.functions
    ]
    yield [test for test in entering if test.name.startswith(f"{own}::")]
    others = []
    left = BUDGET
    for test in sorted(entering, key=lambda test: test.seconds):
        if not test.name.startswith(f"{own}::") and test.seconds <= left:
            others.append(test)
            left -= test.seconds
    yield others


def fail(tree: Path, tests: list[Test]) -> bool:
    """Whether some tests fail on a changed tree; what takes far longer than before has failed."""
    if not tests:
        return False

    def run() -> int:
        files = list(dict.fromkeys(tree / test.name.split("::")[0] for test in tests))
        return int(pytest.main(arguments(tree, files, ["-x"]), [Only({t.name for t in tests})]))

    return forked(run, tree, 60 + 10 * sum(test.seconds for test in tests)) != 0


# ---- The table


def print_table(tried: list[Tried], drawn: int, *, shown: bool) -> None:
    """Killed and survived by file; survivors without a reason, and what changed in them."""
    reasons = tomllib.loads((HERE / "benchmarks" / "mutants.toml").read_text())
    files = collections.defaultdict(list)
    for mutant in tried:
        files[mutant.file].append(mutant)
    print("\n| file | mutants | killed | survived with a reason | without |\n|---|---|---|---|---|")
    for file, some in sorted(files.items()):
        print(f"| {file} | {' | '.join(map(str, counts(some, reasons)))} |")
    total = counts(tried, reasons)
    print(f"| all | {' | '.join(map(str, total))} |\n")
    low, high = interval(total[1], total[0])
    print(
        f"killed: {total[1]} of {total[0]}, {100 * total[1] / max(1, total[0]):.1f} % "
        f"(95 %: {100 * low:.1f} to {100 * high:.1f}) of a sample of {drawn}"
    )
    if shown:
        for mutant in tried:
            if mutant.survived:
                reason = reasons.get(mutant.file, {}).get(mutant.after, "no reason")
                print(f"\n{mutant.file}:{mutant.line} ({mutant.operator}; {reason})")
                print("\n".join(difflib.ndiff([mutant.before], [mutant.after])))


def interval(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Bounds of a share, 95 % (Wilson, 1927, doi:10.1080/01621459.1927.10502953)."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    middle = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def counts(tried: list[Tried], reasons: dict[str, dict[str, str]]) -> tuple[int, int, int, int]:
    """(mutants, killed, survived with a reason, survived without)."""
    survivors = [mutant for mutant in tried if mutant.survived]
    known = sum(mutant.after in reasons.get(mutant.file, {}) for mutant in survivors)
    return len(tried), len(tried) - len(survivors), known, len(survivors) - known


if __name__ == "__main__":
    main()
