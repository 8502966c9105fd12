"""iCaRL: what is learnt from exemplars, which they are, and the nearest of their means."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, ConfigError, ml
from antelope.agents.continual import ICaRL, icarl
from antelope.agents.continual.context import Context

from .course import MLP, Course, Normed, Shallow
from .resuming import Crashing, check_same_end, resumed


def _nothing(*_: Any, **__: Any) -> None:
    pass


def features(agent: MLP, obs: Tensor) -> Tensor:
    """What goes into the output layer, of length 1."""
    with torch.no_grad():
        return F.normalize(agent.second(agent.first(obs).relu()).relu(), dim=1)


# ------------------------------------------------------------------------------------- the loss


def check_the_loss_is_the_paper_s() -> None:
    """Of the third task: two classes of its own, four of before, among them exemplars'."""
    course = Course(ICaRL(capacity=30), tasks=4).learn(0, 1).begin(2)
    before = copy.deepcopy(course.agent).eval()
    course.steps(3)
    obs, label = course.obs[:120:7], course.label[:120:7]
    assert {0, 1, 2, 3} & set(label.tolist())
    batch = Batch(obs=obs, label=label, task=label // 2)
    loss = course.strategy.after_loss(course.agent, batch, torch.tensor(torch.nan))
    with torch.no_grad():
        g, q = course.agent(obs).sigmoid(), before(obs).sigmoid()
    expected = torch.zeros(len(obs), 6)
    for row in range(len(obs)):
        for y in range(6):
            target = q[row, y] if y < 4 else float(label[row] == y)
            expected[row, y] = -(target * g[row, y].log() + (1 - target) * (1 - g[row, y]).log())
    torch.testing.assert_close(loss.detach(), expected.mean())
    assert loss.requires_grad


def test_the_loss_is_the_paper_s() -> None:
    check_the_loss_is_the_paper_s()


def test_the_first_task_s_loss_is_of_its_own_classes() -> None:
    course = Course(ICaRL(capacity=30)).begin(0)
    batch = course.rows(0)
    loss = course.strategy.after_loss(course.agent, batch, torch.tensor(torch.nan))
    target = F.one_hot(batch.label, 2).float()
    expected = F.binary_cross_entropy(course.agent(batch.obs)[:, :2].sigmoid(), target)
    torch.testing.assert_close(loss, expected)


def _own_targets(self: Context, weights: dict[str, Tensor], obs: Tensor) -> Tensor:
    return self.agent(obs).detach()


def _without_distillation(self: ICaRL, agent: Any, batch: Batch, loss: Tensor) -> Tensor:
    self.old = {}
    return after_loss(self, agent, batch, loss)


after_loss = ICaRL.after_loss


@pytest.mark.parametrize(
    ("holder", "name", "broken"),
    [
        (ICaRL, "after_loss", _without_distillation),
        (ICaRL, "after_loss", lambda self, agent, batch, loss: self.context.loss(batch)),
        (Context, "recall", _own_targets),  # The teacher is the model itself.
    ],
)
def test_the_check_notices_another_loss(
    holder: type, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder, name, broken)
    with pytest.raises(AssertionError):
        check_the_loss_is_the_paper_s()


def test_the_check_notices_a_teacher_that_is_never_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(self: ICaRL, agent: Any, replay: Any) -> None:
        if self.context.task == 1:
            begin_task(self, agent, replay)
        self.rows = len(replay)

    begin_task = ICaRL.begin_task
    monkeypatch.setattr(ICaRL, "begin_task", once)
    with pytest.raises(AssertionError):
        check_the_loss_is_the_paper_s()


# ------------------------------------------------------------------------------------- exemplars


def check_exemplars_are_herded() -> None:
    """Of each class those whose mean feature stays nearest to the class's, one after the other."""
    course = Course(ICaRL(capacity=20)).learn(0)
    exemplars = course.strategy.memory.all()
    assert len(exemplars) == 20
    rows = course.rows(0)
    phi = features(course.agent, rows.obs)
    for label in (0, 1):
        own, obs = phi[rows.label == label], rows.obs[rows.label == label]
        chosen: list[int] = []
        for k in range(1, 11):
            means = (own[chosen].sum(0) + own) / k
            distance = (own.mean(0) - means).norm(dim=1)
            distance[chosen] = torch.inf
            chosen.append(int(distance.argmin()))
        found = exemplars.obs[exemplars.label == label]
        assert torch.equal(found, obs[chosen])


def test_exemplars_are_herded() -> None:
    check_exemplars_are_herded()


def _first_rows(x: Tensor, n: int) -> list[int]:
    return list(range(min(n, len(x))))


def _inputs(agent: nn.Module, layer: nn.Module, obs: Tensor) -> Tensor:
    return obs


def test_the_check_notices_that_the_first_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antelope.replay.memory._herd", _first_rows)
    with pytest.raises(AssertionError):
        check_exemplars_are_herded()


def test_the_check_notices_that_inputs_are_taken_for_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(icarl, "features", _inputs)
    with pytest.raises(AssertionError):
        check_exemplars_are_herded()


def test_classes_share_the_capacity() -> None:
    course = Course(ICaRL(capacity=25))
    for task, share in enumerate((12, 6, 4)):
        course.learn(task)
        counts = Counter(course.strategy.memory.all().label.tolist())
        assert counts == dict.fromkeys(range(2 * task + 2), share)


def check_an_exemplar_is_met_as_often_as_a_new_row() -> None:
    met: list[Batch] = []
    learn = ICaRL.before_batch

    class Met(ICaRL):
        def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
            batch = learn(self, agent, batch)
            met.append(batch)
            return batch

    course = Course(Met(capacity=30)).learn(0).begin(1)
    del met[:]
    passes = 8
    course.steps(passes * course.replay.batches_per_epoch)
    label = torch.cat([batch.label for batch in met])
    assert (label >= 2).sum() == passes * 80
    assert abs(int((label < 2).sum()) - passes * 30) <= 1
    assert all(torch.equal(batch.task, batch.label // 2) for batch in met)


def test_an_exemplar_is_met_as_often_as_a_new_row() -> None:
    check_an_exemplar_is_met_as_often_as_a_new_row()


def test_the_check_notices_that_they_are_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ICaRL, "before_batch", lambda self, agent, batch: batch)
    with pytest.raises(AssertionError):
        check_an_exemplar_is_met_as_often_as_a_new_row()


def test_as_many_exemplars_join_a_batch_as_asked_for() -> None:
    course = Course(ICaRL(capacity=30, batch_size=7)).begin(0)
    assert len(next(course.replay)) == 10
    course.end().begin(1)
    assert len(next(course.replay)) == 17


# ------------------------------------------------------------------------------------ prediction


def check_the_nearest_mean_is_predicted() -> None:
    """Also after further steps of a task whose exemplars are chosen, which move the features."""
    course = Course(ICaRL(capacity=20)).learn(0, 1)
    course.predict()
    for _ in range(2):
        exemplars = course.strategy.memory.all()
        phi = features(course.agent, exemplars.obs)
        means = torch.stack([phi[exemplars.label == y].mean(0) for y in range(4)])
        means = F.normalize(means, dim=1)
        distance = (features(course.agent, course.obs)[:, None] - means).norm(dim=2)
        torch.testing.assert_close(course.predict()[:, :4], -distance)
        assert (course.predict()[:, 4:] < -1e4).all()
        course.steps(3)
    # A classifier of its own: the outputs would say something else.
    assert (distance.argmin(1) != course.agent(course.obs)[:, :4].argmax(1)).any()


def test_the_nearest_mean_is_predicted() -> None:
    check_the_nearest_mean_is_predicted()


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("predict", lambda self, agent, obs, task: agent(obs)),
        ("after_step", _nothing),  # The means are those of other features.
    ],
)
def test_the_check_notices_another_prediction(
    name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ICaRL, name, broken)
    with pytest.raises(AssertionError):
        check_the_nearest_mean_is_predicted()


def test_the_check_notices_features_that_are_not_normalised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(icarl.F, "normalize", lambda x, dim: x)
    with pytest.raises(AssertionError):
        check_the_nearest_mean_is_predicted()


def test_until_a_task_has_exemplars_the_outputs_are_the_model_s() -> None:
    course = Course(ICaRL(capacity=20)).begin(0).steps(3)
    assert torch.equal(course.predict(), course.agent(course.obs))
    course = Course(ICaRL(capacity=20)).learn(0, 1).begin(2).steps(3)
    assert torch.equal(course.predict(), course.agent(course.obs))


def test_prediction_leaves_the_model_as_it_is() -> None:
    course = Course(ICaRL(capacity=20), Normed).learn(0, 1)
    before = course.weights()
    assert course.predict().shape == (len(course.obs), 6)
    assert course.agent.training
    assert all(torch.equal(weight, before[name]) for name, weight in course.weights().items())
    course.context.close()
    layers = [course.agent, *course.agent.modules()]
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


# -------------------------------------------------------------------------- runs, resumed, errors


class Stops(Crashing, Shallow):
    width = 32


def learnt(path: Path, model: Any = Stops, **settings: Any) -> Any:
    strategy = {"_target_": "icarl", "capacity": 50}
    how: dict[str, Any] = {"strategy": strategy, "tasks": 5, "epochs": 2, "batch_size": 16}
    how |= {"optim": {"_target_": "SGD", "lr": 0.2, "momentum": 0.9}, "save_every": 6}
    return ml(model=model, path=path, plot=False, progress=False, **how | settings)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that nothing stopped."""
    return learnt(tmp_path_factory.mktemp("runs") / "reference")


def test_digits_are_told_apart(reference: Any) -> None:
    assert reference.metrics["accuracy"] > 0.75
    assert reference.metrics["task_il_accuracy"] > 0.95


# An epoch is 18 or 19 steps, and a task two of them.
@pytest.mark.parametrize("step", [20, 52, 170])
def test_a_run_that_is_resumed_ends_as_if_it_had_never_stopped(
    step: int, reference: Any, tmp_path: Path
) -> None:
    check_same_end(resumed(learnt, Stops, step, tmp_path / "run"), reference)


class Shifted:
    """Augmentation that is easy to recognise."""

    def __call__(self, images: Tensor) -> Tensor:
        return images + 100


class Sees(Shallow):
    """Remembers the darkest row it has learnt."""

    least = torch.inf

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.least = min(self.least, float(batch.obs.flatten(1).mean(1).min()))
        return F.cross_entropy(self(batch.obs), batch.label)


def test_exemplars_are_kept_as_they_are_and_augmented_anew(tmp_path: Path) -> None:
    strategy = ICaRL(capacity=50)
    run = learnt(tmp_path, Sees, strategy=strategy, aug=Shifted(), epochs=1)
    kept = strategy.memory.all()
    assert "obs" not in kept
    assert kept["raw"].abs().max() < 50
    assert run.agent.least > 50


def test_a_finished_run_may_learn_for_longer(reference: Any, tmp_path: Path) -> None:
    learnt(tmp_path, epochs=1)
    run = learnt(tmp_path, epochs=2, resume=True)
    assert run.metrics["accuracy"] > 0.5


def test_a_memory_with_less_than_an_exemplar_of_each_class_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"capacity=5 is less than one exemplar for each of the 6"
    ):
        Course(ICaRL(capacity=5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenario": "domain"}, "strategy=icarl is for scenario=class or task"),
        ({"online": True, "epochs": 1}, "must know where a task ends"),
    ],
)
def test_what_it_is_not_made_for_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        learnt(tmp_path, **settings)
