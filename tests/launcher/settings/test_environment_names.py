"""Environments by name: gymnasium's ids and `module:id`, and what is said of a name that is neither."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml
from gymnasium.envs.classic_control import CartPoleEnv

from antelope import ConfigError, Run, ml
from antelope.launcher.ml import _main
from antelope.launcher.settings import environment_names
from antelope.launcher.settings.completion import candidates
from antelope.launcher.settings.environment_list import print_environments

pytestmark = pytest.mark.usefixtures("workdir")

# A module that registers environments, as packages of environments do.
REGISTERS = """\
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Cart(CartPoleEnv):
    def __init__(self, size=8, **kwargs):
        super().__init__(**kwargs)

class Base(CartPoleEnv):
    def __init__(self, size=8):
        super().__init__()

class Far(Base):
    def __init__(self, colour="red", **kwargs):
        super().__init__(**kwargs)

slow = dict(entry_point="{module}:Cart", max_episode_steps=20)
gymnasium.register(id="{name}-v0", entry_point="{module}:Cart", max_episode_steps=10)
gymnasium.register("{name}Slow-v0", **slow)
gymnasium.register(id="Far/{name}-v2", entry_point="{module}:Far", max_episode_steps=10)
"""


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """What a test registers, and what is found installed for it, is forgotten after it."""
    with contextlib.suppress(ImportError):
        # Its games are registered once in a process, when it is first imported: not inside a test.
        importlib.import_module("ale_py")
    before, imported = dict(gymnasium.registry), set(sys.modules)
    environment_names.installed.cache_clear()
    yield
    new = [spec for name, spec in gymnasium.registry.items() if name not in before]
    gymnasium.registry.clear()
    gymnasium.registry.update(before)
    environment_names.installed.cache_clear()
    # A package registers only when it is imported: a later test has to import it again.
    packages = {_top(str(spec.entry_point).partition(":")[0]) for spec in new}
    for name in set(sys.modules) - imported:
        if _top(name) in packages - {_top(other) for other in imported}:
            del sys.modules[name]


def _top(module: str) -> str:
    return module.partition(".")[0]


def register_in(file: str, name: str = "Mine") -> None:
    Path(file).write_text(REGISTERS.format(module=Path(file).stem, name=name))


@pytest.fixture
def package(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package of environments, which talks when it is imported."""
    site = workdir.parent / f"{workdir.name}-site-packages"
    (site / "caves").mkdir(parents=True)
    text = REGISTERS.format(module="caves", name="Cave")
    text += "import sys, warnings\nprint('Hello from caves')\nprint('Oh', file=sys.stderr)\n"
    (site / "caves" / "__init__.py").write_text(f"{text}warnings.warn('Old caves')\n")
    info = site / "the_caves-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: the-caves\nVersion: 1.0\nRequires-Dist: gymnasium>=1.0\n"
    )
    (info / "top_level.txt").write_text("caves\n")
    monkeypatch.syspath_prepend(str(site))
    return "caves"


def run(*words: str, **settings: Any) -> Run:
    shared: dict[str, Any] = {
        **{"agent": "Random", "train_steps": 40, "seed_steps": 20, "eval_episodes": 1},
        **{"plot": False, "progress": False},
    }
    return ml(*words, **shared | settings)


def refused(*words: str, **settings: Any) -> str:
    before = set(Path("runs").rglob("*"))
    with pytest.raises(ConfigError) as raised:
        run(*words, **settings)
    assert set(Path("runs").rglob("*")) == before
    return str(raised.value)


def config(run: Run) -> Any:
    return yaml.safe_load((run.path / "config.yaml").read_text())


class TestModuleAndId:
    def test_a_word_imports_the_module_and_is_recorded_as_it_was_written(self) -> None:
        register_in("others.py")
        ran = run("env=others:Mine-v0")
        assert ran.metrics["episode_length"] <= 10
        assert config(ran)["env"] == {"_target_": "others:Mine-v0"}
        assert ran.path.relative_to(Path.cwd()).parts == (
            "runs",
            "default",
            "Random",
            "Mine-v0",
            "0",
        )

    def test_python_says_it_likewise_with_arguments(self) -> None:
        register_in("others.py")
        ran = run(env={"_target_": "others:Mine-v0", "max_episode_steps": 5})
        assert ran.metrics["episode_length"] == 5
        assert (
            run(env="others:Mine-v0", **{"env.max_episode_steps": 4}).metrics["episode_length"] == 4
        )

    def test_a_run_is_resumed_by_the_same_name(self) -> None:
        register_in("others.py")
        run(env="others:Mine-v0", train_steps=30)
        again = run("resume=true", env="others:Mine-v0", train_steps=60)
        assert again.history[-1]["step"] == 60

    def test_a_list_is_a_sequence_whose_items_take_arguments_by_id(self) -> None:
        register_in("others.py")
        ran = run("env=[others:Mine-v0,others:Far/Mine-v2]", "env.Mine-v0.max_episode_steps=3")
        assert config(ran)["env"] == [
            {"_target_": "others:Mine-v0", "max_episode_steps": 3},
            "others:Far/Mine-v2",
        ]
        assert ran.path.parent.name == "Mine-v0-Far-Mine-v2"
        word = "env.others:Mine-v0.max_episode_steps=3"
        assert config(run("env=[others:Mine-v0]", word))["env"][0]["max_episode_steps"] == 3
        assert "env.Mine-v0.size=..." in refused("env=[others:Mine-v0]", "env.size=3")

    def test_a_file_may_be_named_as_a_file(self) -> None:
        register_in("others.py")
        assert run("env=others.py:Mine-v0").metrics["episode_length"] <= 10
        assert "others.py has no `Mine-v7`" in refused("env=others.py:Mine-v7")

    def test_after_a_module_its_class_may_be_named_as_in_an_entry_point(self) -> None:
        ran = run("env=gymnasium.envs.classic_control:CartPoleEnv", "time_limit=20")
        name = "gymnasium.envs.classic_control.cartpole.CartPoleEnv"
        assert config(ran)["env"]["_target_"] == name

    @pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
    def test_the_processes_of_async_import_it_too(
        self, start: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from antelope.envs import workers

        monkeypatch.setattr(workers, "can_fork", lambda: start == "fork")
        # Only what the name says: not what this process happens to have registered.
        monkeypatch.setattr(workers, "registered_here", dict)
        register_in("others.py")
        ran = run("env=others:Mine-v0", "vectorization=async", "num_envs=2")
        assert config(ran)["env"]["_target_"] == "others:Mine-v0"
        assert ran.metrics["return"] == 10  # Its time limit.

    def test_a_vector_form_of_its_own(self) -> None:
        Path("others.py").write_text(
            "import gymnasium\nfrom gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv\n"
            "gymnasium.register(id='Mine-v0', entry_point='gymnasium.envs.classic_control:CartPoleEnv',"
            " vector_entry_point=CartPoleVectorEnv, max_episode_steps=10)\n"
            "gymnasium.register(id='Many-v0', vector_entry_point=CartPoleVectorEnv)\n"
        )
        run("env=others:Mine-v0", "vectorization=vector_entry_point", "num_envs=3")
        assert "gymnasium.make_vec" in refused("env=others:Many-v0")

    def test_a_sweep_names_its_folders_without_a_colon(self) -> None:
        register_in("others.py")
        words = (
            "train_steps=20 seed_steps=10 eval_episodes=1 plot=false progress=false agent=Random"
        )
        assert _main(["-m", "env=others:Mine-v0,CartPole-v1", *words.split()]) == 0
        names = sorted(path.name for path in Path("runs/default").iterdir())
        assert names == ["env=CartPole-v1", "env=others-Mine-v0", "sweep.json"]

    def test_an_installed_package_neither_prints_nor_warns(
        self, package: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        run("env=caves:Cave-v0")
        assert capfd.readouterr() == ("", "")

    def test_a_file_here_does_not_hide_an_installed_package(self, package: str) -> None:
        Path("caves.py").write_text("raise RuntimeError\n")
        assert config(run("env=caves:Cave-v0"))["env"]["_target_"] == "caves:Cave-v0"

    def test_the_running_script_is_not_run_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("running_here.py").write_text(
            "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
            "with open('ran', 'a') as file:\n    file.write('x')\n"
            "gymnasium.register('Mine-v0', CartPoleEnv, max_episode_steps=10)\n"
        )
        main = types.ModuleType("__main__")
        main.__file__ = str(Path("running_here.py").absolute())
        monkeypatch.setitem(sys.modules, "__main__", main)
        exec(Path("running_here.py").read_text(), vars(main))
        run("env=running_here:Mine-v0")
        assert Path("ran").read_text() == "x"


class TestMiss:
    @pytest.mark.parametrize(
        ("name", "right"),
        [
            ("CartPole", "Use `CartPole-v1`"),
            ("CartPole-v7", "Use `CartPole-v1`"),
            ("cartpole-v1", "Use `CartPole-v1`"),
            ("LunarLander-v2", "Use `LunarLander-v3`"),
            ("CartPoll-v1", "Did you mean `CartPole-v1`"),
            ("gymnasium:CartPole-v7", "Did you mean `gymnasium:CartPole-v1`"),
            ("gymnasium:", "name one after the colon"),
            ("gymnasium.make('CartPole-v1')", "Write env=CartPole-v1."),
            ("json:Mine-v0", "json registers no `Mine-v0`. It registers no environments (it is "),
            ("nowhere:Mine-v0", "there is no module `nowhere`"),
            ("Mine-v0", "env=module:Mine-v0"),
        ],
    )
    def test_says_what_would_be_right(self, name: str, right: str) -> None:
        text = refused(env=name)
        assert f"No environment `{name}`" in text
        assert right in text

    def test_of_what_a_file_here_registers(self) -> None:
        register_in("others.py")
        assert "others.py registers it" in refused(env="Mine-v0")
        assert "(gymnasium's `module:id`): env=others:Mine-v0." in refused("env=Mine-v0")
        assert "Use `others:Mine-v0`." in refused(env="Mine")
        assert "`others:Far/Mine-v2`" in refused(env="Mine-v2")
        assert "others" not in sys.modules

    def test_of_what_an_installed_package_registers(self, package: str) -> None:
        assert "the-caves registers it" in refused(env="Cave-v0")
        assert "env=caves:Cave-v0." in refused(env="Cave-v0")
        assert "Write env=caves:Cave-v0." in refused(env="the-caves:Cave-v0")
        assert "env=caves:Cave-v0." in refused(env="cave:Cave-v0")
        assert "Did you mean `caves`?" in refused(env="cavess:Nothing-v0")
        assert "Did you mean `caves:Cave-v0`?" in refused(env="caves:Cave-v8")
        for name in ("caves", "the-caves"):
            text = refused(env=name)
            assert "that is the package" in text
            assert "`ml envs caves` lists them" in text

    def test_of_what_would_have_to_be_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in gymnasium.registry if name.startswith("MiniGrid")]:
            del gymnasium.registry[name]
        monkeypatch.delitem(sys.modules, "minigrid", raising=False)
        find = environment_names.importlib.util.find_spec
        monkeypatch.setattr(
            environment_names.importlib.util,
            "find_spec",
            lambda name, *rest: None if name == "minigrid" else find(name, *rest),
        )
        monkeypatch.setattr(environment_names, "installed", lambda: ())
        right = "pip install 'minigrid', and write env=minigrid:MiniGrid-Empty-5x5-v0."
        assert right in refused(env="MiniGrid-Empty-5x5-v0")
        assert right in refused(env="minigrid:MiniGrid-Empty-5x5-v0")

    def test_of_a_module_that_raises(self) -> None:
        Path("others.py").write_text("1 / 0\n")
        text = refused(env="others:Mine-v0")
        assert "others:Mine-v0: importing others raised ZeroDivisionError" in text
        Path("others.py").write_text("import no_such_library\n")
        assert "importing others raised ModuleNotFoundError" in refused(env="others:Mine-v0")

    def test_every_mistake_of_a_list_is_told_at_once(self) -> None:
        assert refused("env=[nowhere:A-v0,CartPole]").count("No environment") == 2

    def test_a_bare_word_is_answered_with_the_setting(self) -> None:
        assert "Write env=others:Mine-v0." in refused("others:Mine-v0")

    def test_an_earlier_version_runs_and_is_said_to_be_out_of_date(self) -> None:
        with pytest.warns(UserWarning, match="CartPole-v0 is out of date: .* CartPole-v1"):
            ran = run("env=CartPole-v0")
        assert config(ran)["env"]["_target_"] == "CartPole-v0"

    def test_a_version_without_code_names_the_newest(self) -> None:
        pytest.importorskip("mujoco")
        with pytest.warns(UserWarning, match="out of date"):
            text = refused(env="Hopper-v3")
        assert "Use env=Hopper-v5." in text


class TestTrust:
    """A preset names what is installed; what lies beside it is not imported for it."""

    def preset(self, *lines: str) -> None:
        Path("mine.yaml").write_text("\n".join(["# @package _global_", *lines, ""]))

    @pytest.mark.parametrize(
        "line",
        [
            "env: others:Mine-v0",
            "env: [CartPole-v1, others:Mine-v0]",
            "env: {_target_: CartPole-v1, inner: {_target_: 'others:Mine-v0'}}",
            "env: caves:Cave-v0",  # There is a package of that name, but not this file.
        ],
    )
    def test_a_file_beside_a_preset_is_not_imported(self, line: str) -> None:
        for name in ("others", "caves"):
            Path(f"{name}.py").write_text("open('ran', 'w')\n")
        self.preset(line)
        text = refused("task=mine")
        assert "mine.yaml, line 2" in text
        assert "as a word: env=" in text
        assert not Path("ran").exists()

    def test_the_same_as_a_word_is(self) -> None:
        register_in("others.py")
        self.preset("env: others:Mine-v0")
        ran = run("task=mine", "env=others:Mine-v0")
        assert config(ran)["env"]["_target_"] == "others:Mine-v0"

    def test_an_installed_package_of_environments_is(self, package: str) -> None:
        self.preset("env: caves:Cave-v0")
        assert config(run("task=mine"))["env"] == {"_target_": "caves:Cave-v0"}

    def test_a_file_that_takes_an_installed_packages_name_is_not(
        self, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("caves.py").write_text("open('ran', 'w')\n")
        monkeypatch.syspath_prepend(str(Path.cwd()))
        self.preset("env: caves:Cave-v0")
        assert "imports caves" in refused("task=mine")
        assert not Path("ran").exists()


class TestObjects:
    def test_a_spec(self) -> None:
        ran = run(env=gymnasium.spec("CartPole-v1"))
        assert config(ran)["env"] == {"_target_": "CartPole-v1"}
        assert run(env=[gymnasium.spec("CartPole-v1")]).path == ran.path
        spec = copy.deepcopy(gymnasium.spec("CartPole-v1"))
        spec.max_episode_steps = 5
        ran = run(env=spec)
        assert ran.metrics["episode_length"] == 5
        assert config(ran)["env"]["_target_"].startswith("instance of")
        forms = {"vectorization": "vector_entry_point", "num_envs": 2}
        run(env=gymnasium.spec("CartPole-v1"), **forms)

    @pytest.mark.parametrize(
        "make",
        [
            functools.partial(gymnasium.make, "CartPole-v1"),
            {"_target_": gymnasium.make, "id": "CartPole-v1"},
            {"_target_": "gymnasium.make", "id": "CartPole-v1"},
            lambda: gymnasium.make("CartPole-v1"),
            lambda: gymnasium.make_vec("CartPole-v1", num_envs=2),
            CartPoleEnv,
        ],
        ids=["partial", "dict", "dict of words", "lambda", "make_vec", "class"],
    )
    def test_what_makes_one(self, make: Any) -> None:
        ran = run(env=make, time_limit=20 if make is CartPoleEnv else None)
        assert ran.spec.obs.shape == (4,)
        assert ran.metrics["return"] > 0

    def test_a_class_that_needs_an_argument_says_which(self) -> None:
        class Sized(CartPoleEnv):
            def __init__(self, size: int):
                super().__init__()

        assert "Pass env.size=..." in refused(env=Sized)


def out(*words: str) -> str:
    """What `ml envs` prints, in one line."""
    import io

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_environments(list(words))
    return " ".join(printed.getvalue().split())


class TestList:
    def test_all_by_package_without_importing_any(self, package: str) -> None:
        register_in("others.py")
        text = out()
        assert text.index("Built in") < text.index("From gymnasium") < text.index("From the-caves")
        assert "CartPole-v1" in text
        assert (
            "From the-caves, named with its module: env=caves:Cave-v0 Cave-v0, CaveSlow-v0, Far/Cave-v2"
            in text
        )
        assert "From others.py, named with its module: env=others:" in text
        assert not {"caves", "others"} & set(sys.modules)

    def test_a_package_that_is_named_is_imported_and_says_nothing(
        self, package: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("caves", "the-caves"):
            assert _main(["envs", name]) == 0
            printed, errors = capfd.readouterr()
            assert "Cave-v0, CaveSlow-v0, Far/Cave-v2" in printed
            assert "Hello" not in printed
            assert errors == ""

    def test_long_lists_are_cut_unless_asked_for(self, package: str) -> None:
        more = "".join(f'gymnasium.register(id="Deep{n}-v0")\n' for n in range(20))
        path = next(p.source for p in environment_names.installed() if p.module == "caves")
        (path / "deep.py").write_text(f"import gymnasium\n{more}")
        environment_names.installed.cache_clear()
        assert "... and 11 more: ml envs caves" in out()
        assert "Deep19-v0" in out("deep")

    def test_a_word_is_looked_for_in_names_and_packages(self, package: str) -> None:
        assert out("cartpole").startswith("From gymnasium CartPole-v0, CartPole-v1")
        assert "Acrobot-v1" in out("classic_control")
        assert "Cave-v2" not in out("cave", "v0")
        with pytest.raises(
            ConfigError, match=r"has `carpole` in its name\. Did you mean `CartPole-v1`"
        ):
            out("carpole")

    def test_a_file_that_registers_none(self) -> None:
        Path("others.py").write_text("")
        with pytest.raises(ConfigError, match=r"others.py registers no environments"):
            out("others")

    def test_completion(self, package: str) -> None:
        assert "CartPole-v1" in candidates("ml env=CartP", whole=False)
        assert candidates("ml env=caves:CaveS", whole=False) == ["CaveSlow-v0"]
        assert candidates("ml env=caves:CaveS", whole=True) == ["env=caves:CaveSlow-v0"]


class TestArguments:
    """Typos in the arguments of an environment, however deep **kwargs carry them."""

    def test_of_a_registered_environment(self) -> None:
        register_in("others.py")
        text = refused("env=others:Mine-v0", "env.sizee=5")
        assert "Mine-v0 has no parameter `sizee` (`env.sizee`). Did you mean `size`?" in text
        assert "`max_episode_steps`?" in refused("env=others:Mine-v0", "env.max_episode_step=5")
        assert "`render_mode`?" in refused("env=others:Mine-v0", "env.rendermode=human")
        run("env=others:Mine-v0", "env.sutton_barto_reward=true", "env.size=3")

    def test_of_what_a_base_takes(self) -> None:
        register_in("others.py")
        text = refused("env=others:Far/Mine-v2", "env.sizee=5")
        assert "Did you mean `size`?" in text
        run("env=others:Far/Mine-v2", "env.size=5")

    def test_of_a_partial(self) -> None:
        make = functools.partial(gymnasium.make, "CartPole-v1")
        assert "Did you mean `render_mode`?" in refused(env=make, **{"env.rendr_mode": "human"})

    def test_of_a_function_that_passes_them_on(self) -> None:
        def make(colour: str = "red", **kwargs: Any) -> Any:
            return gymnasium.make("CartPole-v1", **kwargs)

        assert "Did you mean `sutton_barto_reward`?" in refused(
            env=make, **{"env.sutton_barto_rewrd": True}
        )
        with pytest.warns(UserWarning, match="Did you mean `env.colour`"):
            assert "Did you mean `colour`?" in refused(env=make, **{"env.colur": "blue"})

    def test_that_would_be_lost(self) -> None:
        class Lost(CartPoleEnv):
            def __init__(self, size: int = 3, **kwargs: Any):
                super().__init__()

        assert "Did you mean `size`? It has: size." in refused(env=Lost, **{"env.sizee": 3})

    def test_that_are_kept_are_warned_of_where_one_is_near(self) -> None:
        class Keeps(CartPoleEnv):
            def __init__(self, size: int = 3, **kwargs: Any):
                super().__init__()
                self.settings = kwargs
                kwargs.get("sizes")

        few = {"env": Keeps, "time_limit": 10}
        with pytest.warns(UserWarning, match=r"`env.sizee` is not .* Did you mean `env.size`\?"):
            run(**few, **{"env.sizee": 3})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(**few, **{"env.depth": 3})
            run(**few, **{"env.sizes": 3})


@pytest.mark.parametrize(
    ("module", "env_id", "typo"),
    [
        ("highway_env", "highway-v0", "confg"),
        ("flappy_bird_gymnasium", "FlappyBird-v0", "use_lida"),
        ("gym_anytrading", "forex-v0", "window_sise"),
    ],
)
def test_packages_that_people_have(
    module: str, env_id: str, typo: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if environment_names.find_top(module) is None:
        pytest.skip(f"{module} is not installed: it is heavy, or its pygame conflicts with box2d's")
    if module not in sys.modules:
        assert f"env={module}:{env_id}" in refused(env=env_id)
    assert "Did you mean" in refused(f"env={module}:{env_id}", f"env.{typo}=1")
    if module != "highway_env":  # Whose steps take a second each.
        run(f"env={module}:{env_id}", eval_limit=50, time_limit=50)
    assert env_id in out(module)
    assert capfd.readouterr().out == ""


def test_minigrid() -> None:
    if environment_names.find_top("minigrid") is None:
        pytest.skip("minigrid is not installed: its pygame-ce conflicts with box2d's pygame")
    name = "minigrid:MiniGrid-Empty-5x5-v0"
    assert "Did you mean `size`?" in refused(f"env={name}", "env.sizee=5")
    assert f"Did you mean `{name}`?" in refused("env=minigrid:MiniGrid-Empty-5x5")
    assert "MiniGrid-Empty-6x6-v0" in out("minigrid")
