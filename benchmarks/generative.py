"""How good the samples of the generative models are, measured with a classifier's features.

A small CNN is trained on the same data; its penultimate layer provides the features. For each model, a
preset of `task=generate/`, 10,000 samples are compared with the test set by the Frechet distance
(Heusel et al., 2017, arXiv 1706.08500, with these features instead of Inception's), and counted by the
class that the CNN assigns. Beside them are as many images of the training set, the best that can be hoped
for, and blurred means, which a model must beat: the mean image of each class, in the classes' proportions,
blurred by a Gaussian with a standard deviation of one pixel. With `--conditional`, models generate by
label, and the share of samples to which the CNN assigns the requested label is reported too. Run by hand;
a model takes about ten minutes on one core:

    python benchmarks/generative.py --data ../shared/data [--models VAE DCGAN FlowMatching]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.datasets import MNIST
from torchvision.transforms.functional import gaussian_blur

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import ml
from antelope.benchmarks.frechet import frechet_distance
from antelope.replay import Spec, Standardize

_SAMPLES = 10_000
_ROWS = 500  # Images that are made, or looked at, at once.
_SIGMA = 1.0  # Of the baseline's blur, in pixels.

PRESETS = {"VAE": "mnist_vae", "DCGAN": "mnist_dcgan", "FlowMatching": "mnist_flow"}


class Classifier(nn.Module):
    """Two convolutions, a layer of 128 features, and the last layer, which classifies by them."""

    def __init__(self, in_channels: int, out_features: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.LazyLinear(128),
            nn.ReLU(),
        )
        self.head = nn.Linear(128, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.features(obs))


@dataclass(frozen=True)
class Judge:
    """A classifier, and its features of the test set.

    Attributes:
        real: Features of the test set `[N, F]`.
    """

    classifier: Classifier
    real: Tensor

    def __call__(self, images: Tensor, label: Tensor | None = None) -> dict[str, float]:
        """The figures of images `[N, C, H, W]` in the classifier's units, generated for `label` `[N]`."""
        features = features_of(self.classifier, images)
        with torch.no_grad():
            seen = self.classifier.head(features).argmax(1)
        share = seen.bincount(minlength=self.classifier.head.out_features).double() / len(seen)
        found = {
            "distance": frechet_distance(features, self.real),
            "smallest": float(share.min()),
            "largest": float(share.max()),
            "entropy": float(-(share * share.clamp(min=1e-12).log()).sum()),
        }
        if label is not None:
            found["accuracy"] = float((seen == label).double().mean())
        return found


@torch.no_grad()
def features_of(classifier: Classifier, images: Tensor) -> Tensor:
    return torch.cat([classifier.features(rows) for rows in images.split(_ROWS)])


def drawn(agent: Any, label: Tensor | None) -> Tensor:
    """`[_SAMPLES, *obs.shape]` by an agent in eval mode."""
    torch.manual_seed(0)
    parts: Iterator[Tensor] = (
        agent.sample(_ROWS) if label is None else agent.sample(_ROWS, label[i : i + _ROWS])
        for i in range(0, _SAMPLES, _ROWS)
    )
    return torch.cat([*parts])


def blurred_means(images: Tensor, label: Tensor, drawn_label: Tensor) -> Tensor:
    """The baseline: for each label drawn `[N]` the blurred mean of its class's images."""
    classes = range(int(label.max()) + 1)
    means = torch.stack([images[label == number].mean(0) for number in classes])
    size = 2 * math.ceil(3 * _SIGMA) + 1
    return gaussian_blur(means, [size, size], [_SIGMA, _SIGMA])[drawn_label]


def mnist(root: str, spec: Spec, *, train: bool) -> tuple[Tensor, Tensor]:
    """All images as a model receives them, `[N, 1, 28, 28]`, and their labels `[N]`."""
    data = MNIST(root, train=train)
    return Standardize(spec.obs)({"obs": data.data[:, None]})["obs"], data.targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with MNIST")
    parser.add_argument("--models", nargs="*", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--epochs", type=int, help="default: the presets' own")
    parser.add_argument("--conditional", action="store_true", help="generate by label")
    parser.add_argument(
        "--keep", type=Path, help="folder for the runs and their pictures, which are kept"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        sys.exit(compare(arguments, folder))


def compare(arguments: argparse.Namespace, folder: Path) -> bool:
    """Print the table; returns whether a model missed its goal."""
    common = {"data_dir": arguments.data, "device": "cpu", "threads": 1, "progress": False}
    run = ml(
        model=Classifier,
        dataset="MNIST",
        batch_size=128,
        lr=2e-3,
        epochs=3,
        lr_decay_epochs=3,
        scheduler_every="step",
        plot=False,
        path=folder / "classifier",
        **common,
    )
    print(f"Classifier: accuracy {run.metrics['accuracy']:.4f} on the test set.", flush=True)
    test, _ = mnist(arguments.data, run.spec, train=False)
    train, train_label = mnist(arguments.data, run.spec, train=True)
    judge = Judge(run.agent, features_of(run.agent, test))
    torch.manual_seed(0)
    rows = torch.randperm(len(train))[:_SAMPLES]

    print(f"{'samples':<16}{'distance':>9}{'goal':>9}{'smallest':>10}{'largest':>9}", end="")
    print(f"{'entropy':>9}{'by label':>10}{'minutes':>9}")
    report("training images", judge(train[rows], train_label[rows]))
    baseline = judge(blurred_means(train, train_label, train_label[rows]))
    report("blurred means", baseline)
    distances: dict[str, float] = {}
    failed = False
    for name in arguments.models:
        words = [f"task=generate/{PRESETS[name]}"]
        words += [f"epochs={arguments.epochs}"] if arguments.epochs else []
        words += ["model.conditional=true"] if arguments.conditional else []
        began = time.process_time()
        run = ml(*words, path=folder / name, **common)
        minutes = (time.process_time() - began) / 60
        label = torch.arange(_SAMPLES) % run.spec.action.n if arguments.conditional else None
        found = judge(drawn(run.agent, label), label)
        goal = baseline["distance"] / 2
        if name == "FlowMatching":
            goal = min([goal, *distances.values()])
        distances[name] = found["distance"]
        failed |= found["distance"] >= goal
        report(name, found, goal=goal, minutes=minutes)
    return failed


def report(
    name: str,
    found: dict[str, float],
    *,
    goal: float | None = None,
    minutes: float | None = None,
) -> None:
    """A line of the table."""
    print(
        f"{name:<16}{found['distance']:>9.2f}{_or_empty(goal, '.2f'):>9}{found['smallest']:>10.3f}"
        f"{found['largest']:>9.3f}{found['entropy']:>9.3f}"
        f"{_or_empty(found.get('accuracy'), '.4f'):>10}{_or_empty(minutes, '.1f'):>9}",
        end="\n" if goal is None else f"  {'pass' if found['distance'] < goal else 'FAIL'}\n",
        flush=True,
    )


def _or_empty(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


if __name__ == "__main__":
    main()
