"""In-place distillation: an update equals the manual computation of it, and teaches in one direction only."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

from mos_fairseq.criterions import DistillationMosCriterion
from mos_fairseq.criterions import teacher as teachers
from mos_fairseq.errors import InputError
from tests.helpers import batch, fake_task, language_model, sample_of, small_space, supernet

OPTIMIZER = SimpleNamespace(backward=lambda loss: loss.backward())
SAMPLES = [sample_of(*batch(seed=3)), sample_of(*batch(lengths=((3, 9), (5, 2)), seed=4))]
SPACE, PAD, EPS = small_space(), 1, 0.1


def make(task, **options) -> DistillationMosCriterion:
    return DistillationMosCriterion(task, options.pop("sentence_avg", False), EPS, **options)


def gradients(model) -> dict[str, torch.Tensor]:
    result = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return result


def labels_loss(logits, target) -> torch.Tensor:
    """Label-smoothed cross entropy of each token [B, T]."""
    lprobs = logits.log_softmax(-1)
    smooth = torch.full_like(lprobs, EPS / (lprobs.size(-1) - 1)).scatter(-1, target.unsqueeze(-1), 1 - EPS)
    return -(smooth * lprobs).sum(-1)


def divergence(kind: str, z, teacher) -> torch.Tensor:
    """KL, or the larger of alpha = -1 and alpha = 1, of each token; written out, without clipping."""
    log_q, log_p = z.log_softmax(-1), teacher.log_softmax(-1)
    value = (log_p.exp() * (log_p - log_q)).sum(-1)
    if kind == "alpha":
        value = torch.maximum(value, ((2 * log_q - log_p).exp().sum(-1) - 1) / 2)
    return value


def states_of(model, sample) -> tuple:
    logits, extra = model(**sample["net_input"], return_all_hiddens=True)
    return logits, extra["encoder_states"][1:], extra["inner_states"][1:]


def distance(student, teacher, sample) -> torch.Tensor:
    """Mean over the layers of both sides of the mean squared difference on real tokens and shared channels."""
    values = []
    for side, words in ((1, sample["net_input"]["src_tokens"]), (2, sample["target"])):
        n, total = len(student[side]), len(teacher[side])
        for j in range(n):
            mine = student[side][j]
            theirs = teacher[side][-(-(j + 1) * total // n) - 1].detach()[..., : mine.size(-1)]
            values.append((mine - theirs)[words.t().ne(PAD)].square().mean())
    return torch.stack(values).mean()


OPTIONS = [
    {},
    {"distillation": "alpha", "alpha_clip": float("inf")},
    {"distillation_temperature": 2.0, "distillation_weight": 0.3},
    {"hidden_weight": 0.7, "distillation": "alpha", "alpha_clip": float("inf"), "distillation_weight": 0.5},
]


@pytest.mark.parametrize("routing", ["none", "neuron"])
@pytest.mark.parametrize("options", OPTIONS)
def test_update_equals_the_manual_computation(make_task, make_model, options, routing):
    task = make_task(num_random_subnets=2)
    model, criterion = make_model(task, mos_routing=routing), make(task, **options)
    logs, size = [], 0
    for sample in SAMPLES:
        loss, sample_size, log = task.train_step(sample, model, criterion, OPTIMIZER, 6)
        logs.append((loss.item(), log))
        size += sample_size
    together = {name: grad / size for name, grad in gradients(model).items()}

    t, w = options.get("distillation_temperature", 1.0), options.get("distillation_weight", 1.0)
    subnets, expected, tokens = task.training_subnets(6), 0.0, sum(s["ntokens"] for s in SAMPLES)
    for sample, (loss, log) in zip(SAMPLES, logs, strict=True):
        real, by_name, losses = sample["target"].ne(PAD), {}, []
        model.set_active_subnet(subnets[0][1])
        teacher = states_of(model, sample)
        losses.append(labels_loss(teacher[0], sample["target"])[real].sum())
        for name, subnet in subnets[1:]:
            model.set_active_subnet(subnet)
            student = states_of(model, sample)
            soft = divergence(options.get("distillation", "kl"), student[0] / t, teacher[0].detach() / t)[real].sum()
            hard = labels_loss(student[0], sample["target"])[real].sum()
            hidden = distance(student, teacher, sample) * sample["ntokens"]
            losses.append(w * t**2 * soft + (1 - w) * hard + options.get("hidden_weight", 0) * hidden)
            by_name.setdefault(name, []).append((soft.item(), hidden.item()))
        assert loss == pytest.approx(sum(losses).item() / 4, rel=1e-5) == float(log["loss"])
        assert "distillation_loss@largest" not in log
        for name, values in by_name.items():
            soft, hidden = (sum(v) / len(values) for v in zip(*values, strict=True))
            assert float(log[f"distillation_loss@{name}"]) == pytest.approx(soft, rel=1e-4)
            if "hidden_weight" in options:
                assert float(log[f"hidden_loss@{name}"]) == pytest.approx(hidden, rel=1e-4)
        expected = expected + sum(losses) / 4 / tokens
    expected.backward()
    assert size == 4 * tokens
    for name, grad in gradients(model).items():
        torch.testing.assert_close(together[name], grad, atol=1e-6, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_sentence_average(make_task, make_model):
    """The sample size is the number of sentences; the hidden distance counts once for each."""
    task, sample = make_task(), SAMPLES[0]
    model, criterion = make_model(task), make(task, sentence_avg=True, hidden_weight=0.5, distillation_weight=0.0)
    _, size, log = task.train_step(sample, model, criterion, OPTIMIZER, 0)
    assert size == 3 * 3
    model.set_active_subnet(SPACE.largest())
    teacher = states_of(model, sample)
    model.set_active_subnet(SPACE.smallest())
    expected = 3 * distance(states_of(model, sample), teacher, sample).item()
    assert float(log["hidden_loss@smallest"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"distillation": "alpha", "hidden_weight": 1.0}])
def test_students_do_not_change_their_teacher(make_task, make_model, make_criterion, options):
    """The teacher learns from the labels only, and a student moves only its own weights."""
    task, sample = make_task(), SAMPLES[0]
    model, criterion = make_model(task, mos_routing="none"), make(task, **options)
    teaching = []
    for teacher in (make_criterion(task), criterion):
        criterion.teach(1, 0)
        model.set_active_subnet(SPACE.largest())
        teacher(model, sample)[0].backward()
        teaching.append(gradients(model))
    assert all(torch.equal(plain, teaching[1][name]) and plain.any() for name, plain in teaching[0].items())
    model.set_active_subnet(SPACE.smallest())
    criterion(model, sample)[0].backward()
    learning = gradients(model)
    beyond = [grad for name, grad in learning.items() if ".layers.1." in name or ".layers.2." in name]
    assert len(beyond) > 50 and not any(grad.any() for grad in beyond)
    table = learning["encoder.embed_tokens.weight"]  # shared; the smallest is 12 wide in the encoder, 14 in the decoder
    assert table[:, :14].any(0).all() and not table[:, 14:].any()


def test_logged_losses_are_means(make_task, make_model):
    """Of all mini-batches of an update: divergences in bits a token as the other losses, distances as they are."""
    task = make_task()
    model, criterion = make_model(task), make(task, hidden_weight=0.5, distillation_weight=0.0)
    logs = [task.train_step(sample, model, criterion, OPTIMIZER, 0)[2] for sample in SAMPLES]
    with metrics.aggregate(new_root=True) as whole:
        task.reduce_metrics(logs, criterion)
        found = whole.get_smoothed_values()
    tokens = sum(sample["ntokens"] for sample in SAMPLES)
    for name in ("random", "smallest"):
        for kind, unit in (("distillation_loss", math.log(2)), ("hidden_loss", 1.0)):
            expected = sum(float(log[f"{kind}@{name}"]) for log in logs) / tokens / unit
            assert found[f"{kind}_{name}"] == pytest.approx(expected, abs=1e-3) and expected > 0.01
    assert "distillation_loss_largest" not in found


def test_one_forward_of_each_subnet(make_task, make_model):
    task = make_task(num_random_subnets=2)
    model, criterion, seen = make_model(task), make(task, distillation="alpha", hidden_weight=1.0), []
    model.register_forward_hook(lambda *_: seen.append(model.active_subnet))
    for sample in SAMPLES:
        task.train_step(sample, model, criterion, OPTIMIZER, 3)
    assert seen == 2 * [subnet for _, subnet in task.training_subnets(3)]
    assert criterion._teacher is None  # nothing is held between updates


def test_validation_and_interrupted_updates(make_task, make_model, make_criterion):
    """Outside of an update it is label-smoothed cross entropy, also after an update that failed half-way."""
    task, sample = make_task(), SAMPLES[0]
    model, criterion, plain = make_model(task), make(task, hidden_weight=1.0), make_criterion(task)

    def validation(criterion) -> dict[str, float]:
        return {key: float(value) for key, value in task.valid_step(sample, model, criterion)[2].items()}

    once = task.train_step(sample, model, criterion, OPTIMIZER, 0)[2]
    gradients(model)
    assert validation(criterion) == validation(plain)
    model.set_active_subnet(SPACE.largest())
    criterion.teach(2, 0)
    criterion(model.train(), sample)  # and no student follows
    assert validation(criterion) == validation(plain)
    again = task.train_step(sample, model, criterion, OPTIMIZER, 0)[2]
    assert {k: float(v) for k, v in again.items()} == {k: float(v) for k, v in once.items()}


def test_distillation_may_begin_later(make_task, make_model, make_criterion):
    """Until then an update equals that of label-smoothed cross entropy."""
    task, sample = make_task(), SAMPLES[0]
    model, criteria = make_model(task), [make_criterion(task), make(task, distillation_from=5), make(task)]
    for update, same in ((4, 0), (5, 2)):
        results = []
        for criterion in criteria:
            log = task.train_step(sample, model, criterion, OPTIMIZER, update)[2]
            results.append(({key: float(value) for key, value in log.items()}, gradients(model)))
        (expected, grads), (log, later) = results[same], results[1]
        assert log == expected and ("distillation_loss@smallest" in log) == (update == 5)
        assert all(torch.equal(grads[name], later[name]) for name in grads)


def test_dropout_of_the_teacher_is_that_of_its_own_training(make_task, make_model):
    """Its logits come from the pass that trains it: with dropout, another pass would differ."""
    task, sample = make_task(), SAMPLES[0]
    model, criterion, outputs = make_model(task, dropout=0.3), make(task), []
    model.register_forward_hook(lambda _, __, out: outputs.append(out[0].detach()))
    log = task.train_step(sample, model, criterion, OPTIMIZER, 0)[2]
    real = sample["target"].ne(PAD)
    expected = divergence("kl", outputs[2], outputs[0])[real].sum().item()
    assert float(log["distillation_loss@smallest"]) == pytest.approx(expected, rel=1e-4)


def test_prefixes_are_ignored(make_task, make_model):
    task, sample = make_task(), SAMPLES[0]
    model, criterion, outputs = make_model(task), make(task, ignore_prefix_size=2), []
    model.register_forward_hook(lambda _, __, out: outputs.append(out[0].detach()[:, 2:]))
    log = task.train_step(sample, model, criterion, OPTIMIZER, 0)[2]
    real = sample["target"][:, 2:].ne(PAD)
    expected = divergence("kl", outputs[2], outputs[0])[real].sum().item()
    assert float(log["distillation_loss@smallest"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distillation_temperature": 0.0}, "distillation_temperature is 0.0"),
        ({"distillation_weight": 1.5}, "distillation_weight is 1.5.*from 0 to 1"),
        ({"alpha_minus": 2.0}, "alpha_minus is 2.0 and alpha_plus 1.0"),
        ({"alpha_plus": float("nan")}, "alpha_plus nan"),
        ({"alpha_clip": 0.5}, "alpha_clip is 0.5.*from 1 up"),
        ({"alpha_plus": 3.0}, "alpha_plus is 3.0: it has no effect with distillation kl, only with alpha"),
        ({"alpha_clip": 2.0}, "alpha_clip is 2.0: it has no effect with distillation kl, only with alpha"),
        (
            {"hidden_layers": "last"},
            "hidden_layers is last: it has no effect with hidden_weight 0.0",
        ),
        ({"hidden_weight": -1.0}, "hidden_weight is -1.0"),
        ({"distillation_from": -1}, "distillation_from is -1"),
    ],
)
def test_bad_options(make_task, options, message):
    with pytest.raises(InputError, match=message):
        make(make_task(), **options)


@pytest.mark.parametrize("sampling", ["random", "largest", "smallest"])
def test_needs_a_largest_subnet_and_others(make_task, sampling):
    with pytest.raises(InputError, match=f"subnet_sampling {sampling}: .*sandwich"):
        make(make_task(subnet_sampling=sampling))


def test_needs_the_supernets_task():
    with pytest.raises(InputError, match="--task translation_mos"):
        make(fake_task())


def test_layers_of_a_language_model():
    """In a family of one stack, the distance is over the decoder's layers and the predicted tokens."""
    task = fake_task()
    task.cfg = SimpleNamespace(subnet_sampling="sandwich")
    model, criterion = language_model(dropout=0.0, router_dropout=0.0), make(task, hidden_weight=0.7)
    _, prev, target = batch()
    sample = sample_of(prev, prev, target) | {"net_input": {"src_tokens": prev, "src_lengths": prev.ne(PAD).sum(1)}}
    criterion.teach(1, 0)
    states = []
    for subnet in (model.search_space.largest(), model.search_space.smallest()):
        model.set_active_subnet(subnet)
        _, _, log = criterion(model, sample)
        states.append(model(prev)[1]["inner_states"][1:])
    teacher, (student,) = states[0][-1], states[1]  # one layer, which meets the last of three
    expected = (student - teacher[..., : student.size(-1)])[target.t().ne(PAD)].square().mean() * sample["ntokens"]
    assert float(log["hidden_loss"]) == pytest.approx(expected.item(), rel=1e-4)


# --- a trained model teaches ---

POSITIONS = {"max_source_positions": 50, "max_target_positions": 50}  # of the teacher


@pytest.fixture
def frozen(monkeypatch):
    """A model for ``--teacher``, as if a file held it."""
    model = perturbed_stock()
    monkeypatch.setattr(teachers, "_load", lambda path, task: (model, task))
    monkeypatch.setattr(teachers.os.path, "isfile", lambda path: True)
    return model


def perturbed_stock():
    torch.manual_seed(5)
    return supernet().get_active_subnet()


@pytest.mark.parametrize("sampling", ["sandwich", "alternate", "random", "decay"])
def test_an_update_with_a_trained_teacher(make_task, make_model, frozen, sampling):
    """Every subnet learns from it, the largest too; it is asked once for a mini-batch, and nothing moves it."""
    task = make_task(num_random_subnets=2, subnet_sampling=sampling, largest_until=4, **POSITIONS)
    model = make_model(task)
    criterion = make(task, teacher="x", distillation_temperature=2.0, distillation_weight=0.3)
    assert not list(criterion.parameters()) and not frozen.training
    asked = []
    frozen.register_forward_hook(lambda *_: asked.append(1))
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    found = [task.train_step(sample, model, criterion, OPTIMIZER, 6) for sample in SAMPLES]
    assert len(asked) == len(SAMPLES)
    together, expected, subnets = gradients(model), 0.0, task.training_subnets(6)
    for sample, (loss, _, log) in zip(SAMPLES, found, strict=True):
        real, losses = sample["target"].ne(PAD), []
        with torch.no_grad():
            taught = frozen(**sample["net_input"])[0]
        for name, subnet in subnets:
            model.set_active_subnet(subnet)
            logits = model(**sample["net_input"])[0]
            soft = divergence("kl", logits / 2, taught / 2)[real].sum()
            losses.append(0.3 * 4 * soft + 0.7 * labels_loss(logits, sample["target"])[real].sum())
            assert f"distillation_loss@{name}" in log
        assert loss.item() == pytest.approx(sum(losses).item() / len(subnets), rel=1e-5)
        expected = expected + sum(losses)
    expected.backward()
    for name, grad in gradients(model).items():
        torch.testing.assert_close(together[name], grad, atol=1e-4, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_a_trained_teacher_is_silent_in_validation_and_before_it_begins(make_task, make_model, make_criterion, frozen):
    task, sample = make_task(**POSITIONS), SAMPLES[0]
    model, criterion, plain = make_model(task), make(task, teacher="x", distillation_from=5), make_criterion(task)
    logs = []
    for one in (criterion, plain):
        logs.append((task.train_step(sample, model, one, OPTIMIZER, 4)[2], gradients(model)))
        logs.append((task.valid_step(sample, model, one)[2], {}))
    for mine, theirs in zip(logs[:2], logs[2:], strict=True):
        assert {k: float(v) for k, v in mine[0].items()} == {k: float(v) for k, v in theirs[0].items()}
        assert all(torch.equal(mine[1][name], grad) for name, grad in theirs[1].items())
    assert "distillation_loss@largest" in task.train_step(sample, model, criterion, OPTIMIZER, 5)[2]
