"""Mammoth's own model files learn Split-MNIST here, with only their import lines changed.

Reads a checkout of https://github.com/aimagelab/mammoth and changes nothing in it: copies of its files
import from `antelope.launcher.mammoth` what they imported from Mammoth, and learn `seq-mnist` in one pass,
with the settings of Buzzega et al. (2020, arXiv 2004.07211) if it has the method. Prints whether a file
ran, or why not; class-IL and task-IL accuracy after the last task; and the published figures.

It fails if fewer than 20 of the 30 files run (with --only: if any does not), or if a class-IL accuracy
(task-IL if there is none) differs from the published mean by more than 2.5 points, or 2.5 of its standard
deviations if that is more. A few need other libraries: quadprog (gem), tqdm (joint, joint_gcl),
torchvision. `lucir` calls CUDA to finetune, and so does not finetune here.

    python benchmarks/mammoth.py CHECKOUT [--data ../shared/data] [--only er,der] [--steps 100]
                                          [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # The bars of the models' own.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope.launcher.mammoth import ContinualModel, load_runner, register_model, train

TOLERANCE = 2.5  # Points, or published standard deviations.
ENOUGH = 20  # Of the 30.


@dataclass
class Method:
    """How a file is run, and the figures published for it.

    Attributes:
        args: Its arguments beside `batch_size=10` and `n_epochs=1`.
        class_il, task_il: Published accuracies in percent.
        stddev: The published standard deviation of the accuracy that is compared.
    """

    args: dict[str, Any] = field(default_factory=dict)
    class_il: float | None = None
    task_il: float | None = None
    stddev: float = 0.0

    def misses(self, class_il: float, task_il: float) -> bool | None:
        """Whether the accuracy is too far from the published one; None without one."""
        here, there = class_il, self.class_il
        if there is None:
            here, there = task_il, self.task_il
        if there is None:
            return None
        return abs(here - there) > TOLERANCE * max(1.0, self.stddev)


def rehearsal(lr: float = 0.03, **args: Any) -> dict[str, Any]:
    return {"lr": lr, "buffer_size": 500, **args}


METHODS = {
    "agem": Method(rehearsal(0.1, minibatch_size=128), 46.66, 98.93, stddev=5.9),
    "agem_r": Method(rehearsal(0.1, minibatch_size=128)),
    "bic": Method(rehearsal(bic_epochs=20)),
    "der": Method(rehearsal(alpha=1.0, minibatch_size=128), 90.54, 98.84),
    "derpp": Method(rehearsal(alpha=1.0, beta=0.5, minibatch_size=10), 91.00, 98.94, stddev=1.5),
    "derpp_star": Method(rehearsal(alpha=1.0, beta=0.5)),
    "er": Method(rehearsal(0.1), 86.12, 99.04, stddev=1.9),
    "er_ace": Method(rehearsal()),
    "er_ace_tricks": Method(rehearsal()),
    "er_tricks": Method(rehearsal()),
    "ewc_on": Method({"lr": 0.03, "e_lambda": 90, "gamma": 1.0}, 20.46, 98.39),
    "fdr": Method(rehearsal(alpha=1.0, minibatch_size=128)),
    "gdumb": Method(rehearsal(fitting_epochs=128, batch_size=16)),
    "gem": Method(rehearsal(gamma=0.5), 85.99, 98.71),
    "gss": Method(rehearsal()),
    "hal": Method(rehearsal(0.1, minibatch_size=128)),
    "icarl": Method(rehearsal(0.1), 70.10, 98.3),
    "joint": Method({"lr": 0.03}, 95.57, 99.51),
    "joint_gcl": Method({"lr": 0.03, "online": True}),
    "lucir": Method(rehearsal(fitting_epochs=0)),
    "lwf": Method({"lr": 0.03, "alpha": 1.0, "softmax_temp": 2.0, "optim_wd": 5e-4}, 19.62, 94.11),
    "lwf_mc": Method({"lr": 0.03}),
    "mer": Method(rehearsal(beta=1.0, gamma=1.0, batch_num=1, batch_size=1)),
    "pnn": Method({"lr": 0.1, "scenario": "task"}, None, 99.23),
    "rpc": Method(rehearsal()),
    "sgd": Method({"lr": 0.03}, 19.60, 94.94),
    "si": Method({"lr": 0.1, "c": 1.0, "xi": 0.9}, 19.27, 96.00),
    "xder": Method(rehearsal(alpha=0.3, beta=0.8, simclr_batch_size=16)),
    "xder_ce": Method(rehearsal(alpha=0.3, beta=0.8)),
    "xder_rpc": Method(rehearsal(alpha=0.3, beta=0.8)),
}

_THEIRS = re.compile(
    r"^(\s*)from (?:models|utils|datasets|backbone)(?:\.[\w.]+)? import", re.MULTILINE
)


def model_class(file: Path, folder: Path) -> type:
    """The model of a copy of the file, which imports from Antelope."""
    copy = folder / file.name
    copy.write_text(_THEIRS.sub(r"\1from antelope.launcher.mammoth import", file.read_text()))
    spec = importlib.util.spec_from_file_location(f"mammoth_{file.stem}", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    own = [kind for kind in vars(module).values() if isinstance(kind, type)]
    own = [k for k in own if issubclass(k, ContinualModel) and k.__module__ == spec.name]
    return own[-1]


def learn(
    file: Path, args: dict[str, Any], folder: Path, *, seed: int, steps: int | None
) -> tuple[float, float]:
    """Class-IL and task-IL accuracy in percent after the last task."""
    name = f"mammoth-{file.stem}"
    register_model(name)(model_class(file, folder))
    settings: dict[str, Any] = {"batch_size": 10, "n_epochs": 1, "progress": False, "plot": False}
    settings |= {**args, "seed": seed, "path": str(folder / f"{file.stem}-{seed}")}
    if steps is not None:
        settings["train_steps"] = steps
    metrics = train(*load_runner(name, "seq-mnist", settings)).metrics
    return 100 * metrics["accuracy"], 100 * metrics.get("task_il_accuracy", float("nan"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path, help="a checkout of Mammoth")
    parser.add_argument("--data", default="../shared/data", help="where MNIST is")
    parser.add_argument("--only", help="some of the files, such as er,der")
    parser.add_argument("--steps", type=int, help="learning steps per task; nothing is judged then")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(METHODS)
    if unknown := [name for name in names if name not in METHODS]:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(METHODS)}")
    print(f"{'file':14} {'class-IL':>8} {'task-IL':>8}   {'published':>15}   within      s")
    ran, missed = 0, []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            began, method = time.monotonic(), METHODS[name]
            file = given.checkout / "models" / f"{name}.py"
            args = {**method.args, "base_path": given.data}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    both = [
                        learn(file, args, Path(folder), seed=seed, steps=given.steps)
                        for seed in given.seeds
                    ]
            except Exception as error:
                print(f"{name:14} did not run: {type(error).__name__}: {str(error)[:200]}".strip())
                continue
            ran += 1
            class_il, task_il = (statistics.mean(values) for values in zip(*both, strict=True))
            misses = None if given.steps else method.misses(class_il, task_il)
            if misses:
                missed.append(name)
            there = " / ".join(
                "-" if x is None else f"{x:.2f}" for x in (method.class_il, method.task_il)
            )
            word = {None: "-", True: "NO", False: "yes"}[misses]
            spent = time.monotonic() - began
            print(
                f"{name:14} {class_il:8.2f} {task_il:8.2f}   {there:>15}   {word:6} {spent:6.0f}",
                flush=True,
            )
    enough = len(names) if given.only else ENOUGH
    print(f"{ran} of {len(names)} files ran; at least {enough} have to.")
    if missed:
        print(f"Not within {TOLERANCE} points or standard deviations: {', '.join(missed)}.")
    return int(ran < enough or bool(missed))


if __name__ == "__main__":
    sys.exit(main())
