"""What the README, the pages in docs/ and the examples show works."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.split("\n")[0])
def test_code_in_the_readme_learns(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    if "run" not in names:  # A loop of one's own.
        assert names["accuracy"] > 0.9  # type: ignore[operator]
        return
    metrics = names["run"].metrics  # type: ignore[attr-defined]
    # At random, a pole stands for 22 steps.
    assert metrics["return"] > 60 if "return" in metrics else metrics["accuracy"] > 0.9


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


def test_the_readme_names_only_commands_and_settings_that_exist() -> None:
    from antelope.launcher.inference.play_command import USAGE
    from antelope.launcher.settings.compose import ALIASES, schema

    console = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    known = {key.split(".")[0] for key in schema()} | set(ALIASES) | {"task"}
    played = known | set(re.findall(r"(\w+)=", USAGE))
    for line in (line for block in console for line in block.splitlines()):
        keys = {word.split("=")[0].split(".")[0] for word in line.split() if "=" in word}
        assert keys <= (played if line.startswith("ml play ") else known), line


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
