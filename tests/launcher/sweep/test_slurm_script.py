"""The script of a Slurm array says what the words ask for, and hands each task its run as typed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from antelope import ConfigError
from antelope.launcher.sweep.engines.slurm_script import sbatch_options, script
from antelope.launcher.sweep.trial import Trial

GOLDEN = """\
#!/bin/bash
#SBATCH --array=0-1%20
#SBATCH --chdir='/home/ada/my project'
#SBATCH --output='/home/ada/my project/runs/100%%/slurm/0/%a.out'
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:HUP@60
#SBATCH --job-name=antelope-1a2b3c4d-0
#SBATCH --partition=gpu
#SBATCH --time=4:00:00

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}}"
case "$SLURM_ARRAY_TASK_ID" in
0) set -- '/home/ada/my project/runs/0' seed=0 'model={_target_: Net, hidden: 64}' ;;
1) set -- '/home/ada/my project/runs/1' seed=1 'note=it'"'"'s $HOME `id`' ;;
esac
exec /usr/bin/python3 -P -m antelope.launcher.sweep.engines.slurm_job \
'/home/ada/my project/runs/100%/slurm/0' "$@"
"""

HOME = Path("/home/ada/my project")
TRIALS = [
    Trial(("seed=0", "model={_target_: Net, hidden: 64}"), HOME / "runs/0", {"seed": "0"}, HOME),
    Trial(("seed=1", "note=it's $HOME `id`"), HOME / "runs/1", {"seed": "1"}, HOME),
]


def written(*, python: str = "/usr/bin/python3", files: Path = HOME / "runs/100%/slurm/0") -> str:
    options = {"job-name": "antelope-1a2b3c4d-0", "partition": "gpu", "time": "4:00:00"}
    return script(TRIALS, files=files, jobs=20, options=options, python=python)


def test_the_script_is_an_array_with_a_task_for_each_run() -> None:
    assert written() == GOLDEN


def test_bash_accepts_the_script() -> None:
    done = subprocess.run(["bash", "-n"], input=written(), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("index", [0, 1])
def test_a_task_receives_its_words_to_the_letter(tmp_path: Path, index: int) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    text = written(python=str(python))
    env = {"SLURM_ARRAY_TASK_ID": str(index), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(["bash"], input=text, text=True, capture_output=True, env=env, check=True)
    module = ["-P", "-m", "antelope.launcher.sweep.engines.slurm_job"]
    files = str(HOME / "runs/100%/slurm/0")
    assert said.stdout.splitlines() == [
        *module,
        files,
        str(TRIALS[index].path),
        *TRIALS[index].words,
    ]


@pytest.mark.parametrize(
    ("set_to", "threads"),
    [
        ({}, "1"),
        ({"SLURM_CPUS_ON_NODE": "8"}, "8"),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "4"}, "4"),
        ({"SLURM_CPUS_PER_TASK": "4", "OMP_NUM_THREADS": "2"}, "2"),
    ],
)
def test_a_run_uses_the_cores_of_its_job(
    tmp_path: Path, set_to: dict[str, str], threads: str
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$OMP_NUM_THREADS"\n')
    python.chmod(0o755)
    env = {"SLURM_ARRAY_TASK_ID": "0", "PATH": "/usr/bin:/bin", **set_to}
    said = subprocess.run(
        ["bash"], input=written(python=str(python)), text=True, capture_output=True, env=env
    )
    assert said.stdout.strip() == threads


def test_options_are_those_of_sbatch_and_win_over_ours() -> None:
    given = {"partition": "gpu", "cpus_per_task": "4", "exclusive": "true", "requeue": "false"}
    options = sbatch_options(given)
    assert options == {
        "partition": "gpu",
        "cpus-per-task": "4",
        "exclusive": None,
        "no-requeue": None,
    }
    text = script(TRIALS, files=Path("/f"), jobs=None, options=options | {"open-mode": "truncate"})
    assert "#SBATCH --array=0-1\n" in text
    assert "#SBATCH --exclusive\n" in text
    assert "#SBATCH --no-requeue\n" in text
    assert "#SBATCH --requeue\n" not in text
    assert "#SBATCH --open-mode=truncate\n" in text


def test_an_option_is_left_out_by_false() -> None:
    assert sbatch_options({"exclusive": "false"}) == {}


def test_values_that_bash_or_sbatch_would_split_are_quoted() -> None:
    text = script(TRIALS, files=Path("/f"), jobs=None, options={"comment": "a b # c"})
    assert "#SBATCH --comment='a b # c'\n" in text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"array": "0-3"}, "jobs=N says how many"),
        ({"nodes": "2"}, "one process, on one node"),
        ({"comment": "a\n#SBATCH --time=1"}, "a single printable line"),
        ({"x\nrm": "1"}, "a single printable line"),
        ({"wait": "true"}, "The sweep itself waits"),
    ],
)
def test_an_option_that_cannot_be_is_refused(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        sbatch_options(given)
    assert says in str(error.value)


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        sbatch_options({"nodes": "2", "array": "1"})
    assert len(str(error.value).splitlines()) == 2


def test_a_secret_is_not_written_into_the_script() -> None:
    plain = Trial(("model.api_key=abc",), HOME / "runs/0", {}, HOME)
    with pytest.raises(ConfigError, match=r"model\.api_key=\$\{oc\.env:NAME\}"):
        script([plain], files=Path("/f"), jobs=None, options={})
    # Beside objects, words are in a file of their own, which others may read as well.
    objects = Trial(plain.words, plain.path, {}, HOME, settings={"model": object()})
    with pytest.raises(ConfigError, match="holds a secret"):
        script([objects], files=Path("/f"), jobs=None, options={})
    named = Trial(("model.api_key=${oc.env:KEY}",), HOME / "runs/0", {}, HOME)
    assert "'model.api_key=${oc.env:KEY}'" in script(
        [named], files=Path("/f"), jobs=None, options={}
    )
