"""`ml compat` says what a model file uses that is not there, and runs nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from antelope.launcher.mammoth.compat.command import check
from antelope.launcher.ml import main

MODEL = """
from models.utils.continual_model import ContinualModel
from utils.args import add_rehearsal_args, ArgumentParser
from utils.buffer import Buffer


class Mine(ContinualModel):
    COMPATIBILITY = ["class-il"]

    @staticmethod
    def get_parser(parser) -> ArgumentParser:
        add_rehearsal_args(parser)
        parser.add_argument("--alpha", type=float, required=True)
        return parser

    def __init__(self, backbone, loss, args, transform, dataset=None):
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.buffer = Buffer(self.args.buffer_size)

    def observe(self, inputs, labels, not_aug_inputs, epoch=None):
        weight = self.args.alpha * self.args.minibatch_size
        self.buffer.add_data(examples=not_aug_inputs, labels=labels)
        {line}
        return self.net.classifier(self.net.features(inputs)).sum().item() * weight
"""


def found(line: str = "pass", source: str = MODEL) -> list[str]:
    return [finding.text for finding in check(source.replace("{line}", line))[0]]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def status(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as raised:
        main(["compat", *words])
    assert isinstance(raised.value.code, int)
    return raised.value.code, capsys.readouterr().out


def test_a_file_that_has_all_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(MODEL.replace("{line}", "pass"))
    code, said = status(capsys, "mine.py")
    assert code == 0
    assert said == (
        "mine.py: every name is available. Import from antelope.launcher.mammoth on lines 2, 3, 4.\n"
    )


def test_what_is_missing_has_its_line_and_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(MODEL.replace("{line}", "self.args.alhpa"))
    code, said = status(capsys, "mine.py")
    assert code == 1
    assert said.startswith("mine.py:23: self.args.alhpa is not an argument. Did you mean `alpha`?")
    assert "Declare it in get_parser" in said


def test_bad_input_is_another_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(capsys, "nowhere.py")[0] == 2
    Path("text.py").write_text("this is no Python")
    assert status(capsys, "text.py")[0] == 2
    assert status(capsys)[0] == 2


def test_nothing_of_the_file_is_executed() -> None:
    harm = "open('executed', 'w').write('yes')\n" + MODEL
    assert found(source=harm) == []
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "self.bufer",
            "self.bufer does not exist, and nothing in the file sets it. Did you mean `buffer`",
        ),
        ("self.args.buffersize", "not an argument. Did you mean `buffer_size`"),
        ("self.net.layer7", "self.net.layer7: no registered backbone has it"),
        ("self.buffer.drop_all()", "self.buffer.drop_all: a Buffer has no such attribute"),
        ("self.buffer.add_data(inputs, loss=1)", "self.buffer.add_data has no parameter `loss`"),
        ("Buffer(10, policy=3)", "Buffer has no parameter `policy`"),
        (
            "self.dataset.N_CLASES",
            "N_CLASES: a ContinualDataset has no such attribute. Did you mean `N_CLASSES`",
        ),
        ("self.dataset.train_loader.sampler", "train_loader.sampler does not exist"),
        ("self.dataset.train_loader.dataset.probs", "train_loader.dataset.probs does not exist"),
    ],
)
def test_what_is_read_and_not_there(line: str, expected: str) -> None:
    texts = found(line)
    assert len(texts) == 1
    assert expected in texts[0]


@pytest.mark.parametrize(
    "line",
    [
        "self.opt.zero_grad()",
        "self.own = 1; self.own",
        "self.current_task; self.n_seen_classes; self.cpt; self.device; self.num_classes",
        "self.args.lr; self.args.n_epochs; self.args.batch_size; self.args.seed; vars(self.args)",
        "self.args.later = 3; self.args.later",
        "hasattr(self, 'perhaps') and self.perhaps",
        "self.net.get_params(); self.net.set_grads(inputs); self.net.layer1; self.net.fc1",
        "self.buffer.examples; self.buffer.labels; self.buffer.logits; self.buffer.num_seen_examples",
        "self.dataset.get_offsets(); self.dataset.N_TASKS; self.dataset.get_normalization_transform()",
        "self.dataset.train_loader.dataset.data; self.dataset.train_loader.batch_size",
        "self.dataset.train_loader.dataset.mine = 1; self.dataset.train_loader.dataset.mine",
        "self.register_buffer('kept', inputs); self.kept",
        "self.get_optimizer(params=[], lr=0.1); self.state_dict(); self.train()",
    ],
)
def test_what_is_there_is_not_reported(line: str) -> None:
    assert found(line) == []


def test_hooks_are_held_against_what_they_are_given() -> None:
    hook = MODEL + "\n    def end_task(self, dataset, accs):\n        pass\n"
    (text,) = found(source=hook)
    assert "end_task asks for `accs`, which is not provided" in text
    assert "dataset, epoch, task, replay" in text
    misnamed = MODEL.replace("not_aug_inputs, epoch=None", "not_augmented, epoch=None")
    assert any("observe asks for `not_augmented`" in text for text in found(source=misnamed))
    optional = MODEL.replace("epoch=None):", "epoch=None, logits=None, **kwargs):")
    assert found(source=optional) == []


def test_imports_that_are_not_there() -> None:
    source = (
        "from utils.nothing import NoSuchThing\nimport utils.buffer\nimport no_such_library\n"
        + MODEL
    )
    texts = found(source=source)
    assert "utils.nothing.NoSuchThing is not available" in texts[0]
    assert "import utils.buffer: write `from antelope.launcher.mammoth import ...`" in texts[1]
    assert texts[2] == "no_such_library is not installed."
    ours = "from antelope.launcher.mammoth import Bufer\n" + MODEL
    assert "Did you mean `Buffer`" in found(source=ours)[0]
    tried = (
        "try:\n    import no_such_library\nexcept ImportError:\n    no_such_library = None\n"
        + MODEL
    )
    assert found(source=tried) == []
    needed = tried.replace("no_such_library = None", "raise")
    assert found(source=needed) == ["tries to import no_such_library, which is not installed."]
    typed = "if TYPE_CHECKING:\n    from datasets import Whatever\n" + MODEL
    assert found(source=typed) == []


def test_what_an_argument_has_to_ask_for_is_said_and_does_not_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "if self.args.alpha > 1:\n            self.net.module.get_params()"
    Path("mine.py").write_text(MODEL.replace("{line}", line))
    code, said = status(capsys, "mine.py")
    assert code == 0
    assert "self.net.module: no registered backbone has it. Only if self.args.alpha > 1." in said
    assert "every other name is available" in said


def test_what_cannot_be_known_is_not_claimed() -> None:
    other = MODEL.replace("class Mine(ContinualModel)", "class Mine(Elsewhere)")
    other = "from elsewhere import Elsewhere\n" + other
    assert found("self.anything; self.args.anything", source=other) == [
        "elsewhere is not installed."
    ]
    own_net = "self.net = torch.nn.Linear(1, 1); self.net.weight"
    assert found(own_net, source="import torch\n" + MODEL) == []
    helped = "from utils.gone import add_more_args\n" + MODEL.replace(
        "add_rehearsal_args(parser)", "add_more_args(parser)"
    )
    assert len(found(source=helped)) == 1


def test_a_file_without_a_model() -> None:
    assert found(source="x = 1\n") == [
        "no class here derives from ContinualModel or has `observe`."
    ]
    none = "from models.utils.continual_model import ContinualModel\n\nclass A(ContinualModel):\n    pass\n"
    assert found(source=none) == ["A has no observe: write observe(self, inputs, ...)."]
