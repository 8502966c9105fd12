"""What the README, the pages in docs/ and the examples show works."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from antelope.launcher.commands import command
from antelope.launcher.inference.play_command import USAGE
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.schema import schema
from antelope.launcher.sweep.grid import make_trials
from antelope.launcher.sweep.searching import build_search
from antelope.launcher.sweep.words import combinations, read_words

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(language: str) -> list[tuple[str, str]]:
    """The name of a page and the text of each of its fenced blocks in a language."""
    fence = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [(page.name, text) for page in PAGES for text in fence.findall(page.read_text())]


def _commands() -> list[tuple[str, str]]:
    """The name of a page and each `ml ...` on it: lines of console blocks, and settings in its prose."""
    found = []
    for name, block in _blocks("console"):
        for line in block.splitlines():
            plain = re.sub(r"\s+# .*", "", line)
            found += [(name, part) for part in re.split(r"\s*&&\s*", plain)]
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        inline = re.findall(r"`(ml [^`]*=[^`]*)`", prose)
        found += [(page.name, text) for text in inline]
    return [(name, text) for name, text in found if text.split(" ")[0] == "ml"]


@pytest.mark.parametrize(
    ("page", "code"), _blocks("python"), ids=lambda text: text.splitlines()[0][:40]
)
def test_the_python_of_the_pages_learns(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, page, "exec"), names)
    if "run" not in names:  # A loop of one's own.
        assert names["accuracy"] > 0.9  # type: ignore[operator]
        return
    metrics = names["run"].metrics  # type: ignore[attr-defined]
    if "accuracy" in metrics:
        assert metrics["accuracy"] > 0.9
    elif "return" in metrics:  # At random, a pole stands for 22 steps.
        assert metrics["return"] > 60
    else:  # A VAE; untrained it has 44 nats.
        assert metrics["loss"] < 30


@pytest.mark.parametrize(("page", "line"), _commands(), ids=lambda text: text)
def test_the_commands_of_the_pages_are_accepted(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVICE_KEY", "of the user's")
    for _, preset in _blocks("yaml"):  # The pages call it so.
        Path("mine.yaml").write_text(preset)
    words = shlex.split(line)[1:]
    if "-m" in words:
        asked = read_words(words)
        if "search" in asked.options:
            assert build_search(asked, tmp_path, {}).total > 1
        else:
            found = combinations(asked.words)
            assert len(make_trials([(combination, {}) for combination in found], tmp_path)) > 1
    elif command(words) is None:
        compose(words, {})  # Refuses unknown settings, and values of the wrong type.
    elif words[0] == "play":
        asked = {word.split("=")[0] for word in words if "=" in word}
        assert asked <= set(re.findall(r"(\w+)=", USAGE))


@pytest.mark.parametrize(("page", "text"), _blocks("yaml"), ids=lambda text: text.splitlines()[0])
def test_the_presets_of_the_pages_are_accepted(
    page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    assert {"optim", "epochs"} <= set(compose(["task=mine"], {}).given)


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in text
    for fence in re.findall(
        r"^```(\w+)$", "".join(page.read_text() for page in PAGES), re.MULTILINE
    ):
        assert fence in ("python", "console", "yaml")  # What the tests above run or check.


LEAST = {
    "plain_module": 0.9,
    "task_sequence": 0.15,
    "strategy": 0.85,
    "memory": 0.4,
    "mammoth": 0.8,
}


@pytest.mark.parametrize("name", LEAST)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "progress=false", "plot=false"])
    run = runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")["run"]
    assert run.metrics.get("r2", run.metrics.get("accuracy")) > LEAST[name]


def test_the_example_of_a_loop_of_ones_own_runs(capsys: pytest.CaptureFixture[str]) -> None:
    matrix = runpy.run_path(str(ROOT / "examples" / "own_loop.py"), run_name="__main__")["matrix"]
    assert matrix[-1].mean() > 0.8
    assert "Column" in capsys.readouterr().out


def test_every_example_is_short() -> None:
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 42, path.name


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path) if path else page
            assert linked.exists(), target
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE) if anchor else []
            names = [
                re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in headings
            ]
            assert not anchor or anchor in names, target


@pytest.mark.parametrize(
    ("row", "marks"),
    [
        ("only if `override` names it", {"fixed"}),
        ("never", {"sequence", "kept"}),
        ("without effect", {"start"}),
    ],
)
def test_the_page_about_running_lists_the_settings_that_a_resume_refuses(
    row: str, marks: set[str]
) -> None:
    page = (ROOT / "docs/running.md").read_text()
    (cell,) = re.findall(rf"^\| {row} \| (.*) \|$", page, re.MULTILINE)
    listed = re.findall(r"`([\w.]+)`", cell)
    assert sorted(listed) == sorted(key for key, of in schema().items() if of.counts & marks)


def test_contributing_names_every_folder_and_only_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`([\w/.]+(?:/|\.py|\.yaml))`", text))
    for name in sorted(name for name in named if "NAME" not in name):
        assert any(
            (ROOT / place / name).exists()
            for place in (
                ".",
                "envs",
                "launcher",
                "hyperparams",
                "tests/accelerator",
                "tests/faults",
            )
        ), name
    for folder in [*ROOT.glob("launcher/*/"), *ROOT.glob("agents/*/")]:
        if (folder / "__init__.py").exists():
            inside = folder.relative_to(
                ROOT / "launcher" if folder.parent.name == "launcher" else ROOT
            )
            assert f"`{inside.as_posix()}/`" in text, folder
