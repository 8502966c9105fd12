"""What the engine does about jobs that end, are cancelled, or were submitted before, on a pretended Slurm."""

from __future__ import annotations

import json
import pickle
import signal
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest

from antelope import ConfigError
from antelope.launcher.sweep.engines import engine_named, slurm, slurm_queue
from antelope.launcher.sweep.engines.slurm import Slurm, print_script
from antelope.launcher.sweep.engines.slurm_queue import NoAnswer, Task, tasks
from antelope.launcher.sweep.trial import Outcome, Trial

FINISHED = Outcome("finished", {"accuracy": 0.9}, "", 0)
STOPPED = Outcome("interrupted", {}, "SIGTERM", 128 + signal.SIGTERM)
OUT_OF_TIME = Outcome("interrupted", {}, "SIGHUP", 128 + signal.SIGHUP)


@dataclass
class Pretended:
    """A queue in this process: `tasks` is what `squeue` shows; each look at it may change it."""

    tasks: dict[str, Task] = field(default_factory=dict)
    submitted: list[str] = field(default_factory=list)
    requeued: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    refuses: str = ""
    silent: int = 0

    def ask(self, *command: str, script: str | None = None) -> str:
        match command:
            case "sbatch", "--test-only":
                if self.refuses:
                    raise NoAnswer(self.refuses)
            case "sbatch", "--parsable":
                assert script is not None
                return self.submit(script)
            case "scontrol", "requeue", job:
                self.requeue(job)
            case "scancel", *jobs:
                self.cancelled += jobs
                for job in jobs:
                    self.set(job, "CANCELLED")
        return ""

    def submit(self, text: str) -> str:
        self.submitted.append(text)
        job = str(100 + len(self.submitted))
        name = next(line for line in text.splitlines() if "--job-name=" in line).partition("=")[2]
        for index in range(text.count(") set -- ")):
            self.tasks[f"{job}_{index}"] = Task(f"{job}_{index}", name, index, "RUNNING", "None")
        return job

    def read(self, name: str) -> list[Task]:
        if self.silent:
            self.silent -= 1
            raise NoAnswer("Unable to contact slurm controller")
        return [task for task in self.tasks.values() if task.name.rpartition("-")[0] == name]

    def requeue(self, job: str) -> None:
        self.requeued.append(job)
        self.set(job, "PENDING")

    def set(self, job: str, state: str, why: str = "None") -> None:
        self.tasks[job] = self.tasks[job]._replace(state=state, why=why)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    pretended = Pretended()
    monkeypatch.setattr(slurm_queue, "ask", pretended.ask)
    monkeypatch.setattr(slurm_queue, "tasks", pretended.read)
    monkeypatch.setattr(slurm, "_LOOK_S", 0.0)
    monkeypatch.setattr(slurm, "_ASK_S", (0.0, 0.0))
    return pretended


def trials(folder: Path, count: int = 2) -> list[Trial]:
    return [
        Trial((f"seed={seed}",), folder / str(seed), {"seed": str(seed)}, folder)
        for seed in range(count)
    ]


def started(folder: Path, count: int = 2, jobs: int | None = None) -> Slurm:
    engine = Slurm(jobs=jobs, folder=folder, options={})
    for trial in trials(folder, count):
        engine.start(trial)
    return engine


def say(folder: Path, index: int, outcome: Outcome, submission: str = "0") -> None:
    files = folder / "slurm" / submission
    files.mkdir(parents=True, exist_ok=True)
    (files / f"{index}.json").write_text(json.dumps(asdict(outcome)))


def test_all_that_is_started_becomes_one_array(tmp_path: Path, queue: Pretended) -> None:
    engine = started(tmp_path, 3, jobs=2)
    engine._submit()
    for index in (2, 0, 1):
        say(tmp_path, index, FINISHED)
        trial, outcome = engine.wait()
        assert (trial.path, outcome) == (tmp_path / str(index), FINISHED)
    assert len(queue.submitted) == 1
    assert "#SBATCH --array=0-2%2\n" in queue.submitted[0]


def test_a_run_whose_process_died_is_queued_again_three_times_at_most(
    tmp_path: Path, queue: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = started(tmp_path, 1)
    engine._submit()
    monkeypatch.setattr(queue, "requeue", queue.requeued.append)
    queue.set("101_0", "OUT_OF_MEMORY")
    _, outcome = engine.wait()
    assert queue.requeued == ["101_0", "101_0"]
    assert outcome.status == "failed"
    assert outcome.reason.startswith("Its process died 3 times (out of memory; see ")
    assert outcome.reason.endswith("slurm/0/0.out)")


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_run_that_the_cluster_ended_is_queued_again_however_often(
    tmp_path: Path, queue: Pretended, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = started(tmp_path, 1)
    engine._submit()
    say(tmp_path, 0, STOPPED)

    def requeue(job: str) -> None:
        queue.requeued.append(job)
        if len(queue.requeued) == 5:
            say(tmp_path, 0, FINISHED)

    monkeypatch.setattr(queue, "requeue", requeue)
    queue.set("101_0", state)
    assert engine.wait()[1] == FINISHED
    assert len(queue.requeued) == 5


def test_a_run_whose_time_was_over_is_submitted_again_where_slurm_does_not_requeue(
    tmp_path: Path, queue: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = started(tmp_path, 1)
    engine._submit()
    say(tmp_path, 0, OUT_OF_TIME)
    queue.set("101_0", "FAILED")

    accept = queue.submit

    def submit(text: str) -> str:
        job, number = accept(text), str(len(queue.submitted) - 1)
        say(tmp_path, 0, FINISHED if number == "4" else OUT_OF_TIME, submission=number)
        queue.set(f"{job}_0", "FAILED")
        return job

    monkeypatch.setattr(queue, "submit", submit)

    def refuse(job: str) -> None:
        raise NoAnswer("Requested operation is presently disabled")

    monkeypatch.setattr(queue, "requeue", refuse)
    assert engine.wait()[1] == FINISHED
    assert len(queue.submitted) == 5  # More often than a process may die.


def test_a_stopped_run_that_is_in_the_queue_again_is_waited_for(
    tmp_path: Path, queue: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = started(tmp_path, 1)
    engine._submit()
    say(tmp_path, 0, STOPPED)
    looks = []

    def read(name: str) -> list[Task]:
        looks.append(name)
        queue.set("101_0", ("COMPLETING", "PENDING", "RUNNING")[min(len(looks), 3) - 1])
        if len(looks) == 4:
            say(tmp_path, 0, FINISHED)
        return queue.read(name)

    monkeypatch.setattr(slurm_queue, "tasks", read)
    assert engine.wait()[1] == FINISHED
    assert queue.requeued == []


def test_a_job_that_somebody_cancelled_fails_alone(tmp_path: Path, queue: Pretended) -> None:
    engine = started(tmp_path, 2)
    engine._submit()
    queue.set("101_0", "CANCELLED")
    trial, outcome = engine.wait()
    assert trial.path == tmp_path / "0"
    assert (outcome.status, outcome.exit_code) == ("failed", 143)
    assert "cancelled" in outcome.reason
    say(tmp_path, 1, FINISHED)
    assert engine.wait()[1] == FINISHED


def test_a_controller_that_is_down_ends_no_run(
    tmp_path: Path,
    queue: Pretended,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = started(tmp_path, 1)
    engine._submit()
    queue.silent = 10
    queue.set("101_0", "FAILED")

    accept = queue.requeue

    def requeue(job: str) -> None:
        accept(job)
        say(tmp_path, 0, FINISHED)

    monkeypatch.setattr(queue, "requeue", requeue)
    assert engine.wait()[1] == FINISHED
    assert capsys.readouterr().err.count("Slurm does not answer") == 1
    assert queue.silent == 0


def test_a_second_driver_waits_for_the_jobs_of_the_first(
    tmp_path: Path, queue: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    started(tmp_path, 2)._submit()
    queue.set("101_0", "PENDING")
    engine = started(tmp_path, 3)  # One more than before.
    engine._submit()
    assert [text.count(") set -- ") for text in queue.submitted] == [2, 1]
    say(tmp_path, 0, FINISHED, submission="1")
    assert engine.wait()[0].path == tmp_path / "2"
    say(tmp_path, 1, FINISHED)
    assert engine.wait()[0].path == tmp_path / "1"
    assert "seed=0 is in Slurm's queue already (job 101_0)" in capsys.readouterr().err


def test_jobs_with_other_words_at_the_same_place_are_not_taken_for_these(
    tmp_path: Path, queue: Pretended
) -> None:
    started(tmp_path, 1)._submit()
    engine = Slurm(jobs=None, folder=tmp_path, options={})
    engine.start(replace(trials(tmp_path)[0], words=("seed=0", "epochs=9")))
    with pytest.raises(ConfigError, match=r"with other words: seed=0.*scancel 101_0"):
        engine.wait()


def test_a_sweep_cancels_its_own_jobs_only(tmp_path: Path, queue: Pretended) -> None:
    started(tmp_path, 1)._submit()
    engine = Slurm(jobs=None, folder=tmp_path, options={})
    engine.start(replace(trials(tmp_path)[0], path=tmp_path / "other"))
    engine._submit()
    engine.close(cancel=True)
    assert queue.cancelled == ["102_0"]


def test_jobs_outlive_a_driver_that_does_not_cancel_them(
    tmp_path: Path, queue: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = started(tmp_path)
    engine._submit()
    engine.close(cancel=False)
    assert queue.cancelled == []
    assert "Still in Slurm's queue: 2 runs." in capsys.readouterr().err


def test_what_sbatch_refuses_is_said_before_anything_is_kept(
    tmp_path: Path, queue: Pretended
) -> None:
    queue.refuses = "invalid partition specified: nope"
    with pytest.raises(ConfigError, match="sbatch refuses such jobs: invalid partition"):
        started(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_slurm_holds_is_said_once(
    tmp_path: Path, queue: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = started(tmp_path, 1)
    engine._submit()
    queue.set("101_0", "PENDING", "launch failed requeued held")
    engine._left(), engine._left()
    said = capsys.readouterr().err
    assert said.count("Slurm holds seed=0 (job 101_0): launch failed requeued held") == 1


def test_a_trial_with_objects_is_kept_for_its_task(tmp_path: Path, queue: Pretended) -> None:
    engine = Slurm(jobs=None, folder=tmp_path, options={})
    trial = replace(trials(tmp_path)[0], settings={"model": Pretended})
    engine.start(trial)
    engine._submit()
    assert pickle.loads((tmp_path / "slurm" / "0" / "0.pickle").read_bytes()) == trial
    assert "--objects" in queue.submitted[0]


def test_printing_writes_and_submits_nothing(
    tmp_path: Path, queue: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"print": "true", "partition": "gpu"}
    print_script(trials(tmp_path), jobs=2, folder=tmp_path, options=options)
    printed = capsys.readouterr()
    assert printed.out.startswith("#!/bin/bash\n#SBATCH --array=0-1%2\n")
    assert "#SBATCH --partition=gpu\n" in printed.out
    assert "print" not in [line.partition("=")[0] for line in printed.out.split("--")]
    assert "mkdir -p" in printed.err
    assert (list(tmp_path.iterdir()), queue.submitted) == ([], [])


def test_a_machine_without_slurm_says_where_to_start_and_how_to_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"does not have.*slurm\.print=true"):
        engine_named("slurm", jobs=None, folder=tmp_path, options={})


def test_the_queue_is_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(
        "#!/bin/sh\n"
        "echo '7|N/A|RUNNING|None|antelope-1a2b3c4d-0'\n"
        "echo '8|0|RUNNING|None|antelope-1a2b3c4d-0'\n"
        "echo '8|3|PENDING|Resources|antelope-1a2b3c4d-1'\n"
        "echo '9|0|RUNNING|None|antelope-ffffffff-0'\n"
        "echo '9|0|RUNNING|None|odd | name'\n"
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = [(task.job, task.state, task.alive) for task in tasks("antelope-1a2b3c4d")]
    assert found == [("8_0", "RUNNING", True), ("8_3", "PENDING", True)]
    squeue.write_text("#!/bin/sh\necho 'squeue: error: Unable to contact controller' >&2\nexit 1\n")
    with pytest.raises(NoAnswer, match=r"^Unable to contact controller$"):
        tasks("antelope-1a2b3c4d")
