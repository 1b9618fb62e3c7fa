"""Validation of several subnets: every metric equals a direct computation over the whole set."""

from __future__ import annotations

import math
from argparse import Namespace

import numpy as np
import pytest
import sacrebleu
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.data import LanguagePairDataset
from fairseq.logging import metrics
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import resolve_subnet
from tests.helpers import batch, sample_of, small_space

SPACE = small_space()
SPECS = {"largest": "largest", "smallest": "smallest", "random7": "random:7"}
SAMPLES = [
    sample_of(*batch(seed=3)),
    sample_of(*batch(lengths=((3, 9), (5, 2)), seed=4)),
    sample_of(*batch(lengths=((8, 4),), seed=5)),
]
BEAM = '{"beam": 3, "max_len_b": 9, "min_len": 5}'


def validate(task, model, criterion, at_once: bool) -> dict[str, float]:
    """Metrics as the trainer takes them (reduced batch by batch), or fairseq-validate (all at once)."""
    logs = [task.valid_step(sample, model, criterion)[2] for sample in SAMPLES]
    with metrics.aggregate(new_root=True) as whole:
        for group in [logs] if at_once else [[log] for log in logs]:
            task.reduce_metrics(group, criterion)
        return dict(whole.get_smoothed_values())


@pytest.fixture
def validated(make_task, make_model, make_criterion):
    task = make_task(valid_subnets=",".join(SPECS.values()))
    return task, make_model(task), make_criterion(task)


@pytest.mark.parametrize("at_once", [False, True])
def test_losses_equal_a_direct_computation(validated, at_once):
    task, model, criterion = validated
    found = validate(task, model, criterion, at_once)
    model.eval()
    expected = {}
    tokens = sum(sample["ntokens"] for sample in SAMPLES)
    for name, spec in SPECS.items():
        model.set_active_subnet(resolve_subnet(spec, SPACE))
        with torch.no_grad():
            logs = [criterion(model, sample)[2] for sample in SAMPLES]
        for key in ("loss", "nll_loss"):
            expected[f"{key}_{name}"] = sum(float(log[key]) for log in logs) / tokens / math.log(2)
    for key in ("loss", "nll_loss"):
        expected[key] = sum(expected[f"{key}_{name}"] for name in SPECS) / len(SPECS)
    for name in SPECS:
        assert found[f"ppl_{name}"] == pytest.approx(2 ** expected[f"nll_loss_{name}"], rel=1e-3)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-3)
    assert len({round(expected[f"loss_{name}"], 2) for name in SPECS}) == 3  # the losses are distinguishable


def test_step_returns_the_mean_loss(validated):
    task, model, criterion = validated
    loss, size, log = task.valid_step(SAMPLES[0], model, criterion)
    each = [float(log[f"loss@{name}"]) for name in SPECS]
    assert float(loss) == pytest.approx(sum(each) / 3) == float(log["loss"])
    assert size == SAMPLES[0]["ntokens"] and not loss.requires_grad


def test_order_of_the_subnets_does_not_matter(validated, make_task):
    task, model, criterion = validated
    backwards = make_task(valid_subnets=",".join(reversed(SPECS.values())))
    first, second = (validate(t, model, criterion, False) for t in (task, backwards))
    timings = {"wps"}
    assert {k: v for k, v in first.items() if k not in timings} == pytest.approx(
        {k: v for k, v in second.items() if k not in timings}
    )


def test_stock_cross_entropy(make_task, make_model):
    """It logs no nll_loss, and a perplexity of the loss."""
    task = make_task()
    found = validate(task, make_model(task), CrossEntropyCriterion(task, sentence_avg=False), False)
    assert found["loss"] == pytest.approx((found["loss_largest"] + found["loss_smallest"]) / 2, abs=2e-3)


def references(task, model) -> list[dict]:
    """The samples, with the largest subnet's translations, a few words changed, as their targets."""
    generator = SequenceGenerator([model], task.tgt_dict, beam_size=3, max_len_b=9, min_len=5)
    model.set_active_subnet(SPACE.largest())
    model.eval()
    changed = []
    for sample in SAMPLES:
        hypotheses = [found[0]["tokens"].clone() for found in generator.generate([model], sample)]
        for number, tokens in enumerate(hypotheses):
            tokens[number % 2] = task.tgt_dict.unk()
        target = torch.full((len(hypotheses), max(map(len, hypotheses))), task.tgt_dict.pad())
        for row, tokens in enumerate(hypotheses):
            target[row, : len(tokens)] = tokens
        previous = torch.cat([torch.full((len(target), 1), task.tgt_dict.eos()), target[:, :-1]], dim=1)
        previous[previous.eq(task.tgt_dict.eos()) & (torch.arange(target.size(1)) > 0)] = task.tgt_dict.pad()
        changed.append(sample_of(sample["net_input"]["src_tokens"], previous, target))
    return changed


def direct_bleu(task, model, subnet, samples) -> float:
    """sacrebleu's corpus BLEU of the subnet's static twin over the whole set."""
    model.set_active_subnet(subnet)
    twin = model.get_active_subnet()
    generator = SequenceGenerator([twin], task.tgt_dict, beam_size=3, max_len_b=9, min_len=5)
    words = task.tgt_dict
    hypotheses, wanted = [], []
    for sample in samples:
        best = [found[0]["tokens"] for found in generator.generate([twin], sample)]
        hypotheses += [words.string(tokens, unk_string="UNK1") for tokens in best]
        wanted += [words.string(row[row.ne(words.pad())], unk_string="UNK2") for row in sample["target"]]
    return sacrebleu.corpus_bleu(hypotheses, [wanted]).score


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [False, True])
def test_bleu_equals_sacrebleu_over_the_whole_set(make_task, make_model, make_criterion, monkeypatch, at_once):
    specs = ",".join(SPECS.values())
    task = make_task(valid_subnets=specs, eval_bleu=True, eval_bleu_args=BEAM)
    model = make_model(task)
    samples = references(task, model)
    expected = {name: direct_bleu(task, model, resolve_subnet(spec, SPACE), samples) for name, spec in SPECS.items()}
    assert expected["largest"] > 50 and len({round(x, 1) for x in expected.values()}) > 1
    monkeypatch.setitem(globals(), "SAMPLES", samples)
    found = validate(task, model, make_criterion(task), at_once)
    assert {name: found[f"bleu_{name}"] for name in SPECS} == pytest.approx(expected, abs=0.006)
    assert found["bleu"] == pytest.approx(sum(expected.values()) / 3, abs=0.006)


def test_training_goes_on_after_validation(validated):
    """Validation leaves eval mode on; an update sets mode and subnets itself."""
    task, model, criterion = validated
    seen = []
    model.decoder.register_forward_hook(lambda *_: seen.append((model.active_subnet, model.training)))
    task.valid_step(SAMPLES[0], model, criterion)
    optimizer = type("Optimizer", (), {"backward": staticmethod(lambda loss: None)})
    task.train_step(SAMPLES[0], model, criterion, optimizer, 4)
    valid = [(resolve_subnet(spec, SPACE), False) for spec in SPECS.values()]
    assert seen == valid + [(subnet, True) for _, subnet in task.training_subnets(4)]


def test_the_callers_subnet_stays_active(make_task, make_model, make_criterion):
    """Through validation with BLEU, an update, a generator, and a step that fails."""
    task = make_task(valid_subnets="largest,smallest", eval_bleu=True, eval_bleu_args=BEAM)
    model, criterion = make_model(task), make_criterion(task)
    chosen = model.sample_subnet("chosen")
    model.eval()
    expected = logits(model)
    optimizer = type("Optimizer", (), {"backward": staticmethod(lambda loss: None)})

    def fails(*_):
        raise ZeroDivisionError

    searching, search = [], task.inference_step
    task.inference_step = lambda *args, **more: searching.append(model.decoder.need_attn) or search(*args, **more)
    task.valid_step(SAMPLES[0], model, criterion)
    assert searching == [False, False] and model.decoder.need_attn  # BLEU is of words only
    task.train_step(SAMPLES[0], model, criterion, optimizer, 4)
    for step in (task.valid_step, lambda *args: task.train_step(*args, optimizer, 4)):
        with pytest.raises(ZeroDivisionError):
            step(SAMPLES[0], model, fails)
    model.eval()
    generator = task.build_generator([model], Namespace(beam=3, max_len_b=9, min_len=5))
    assert model.active_subnet is chosen and torch.equal(logits(model), expected)
    found = task.inference_step(generator, [model], SAMPLES[0])
    twin = model.get_active_subnet()
    alone = SequenceGenerator([twin], task.tgt_dict, beam_size=3, max_len_b=9, min_len=5).generate([twin], SAMPLES[0])
    assert [h[0]["tokens"].tolist() for h in found] == [h[0]["tokens"].tolist() for h in alone]
    assert model.active_subnet is chosen


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(**SAMPLES[0]["net_input"])[0]


# --- accuracy ---


def with_criterion(task, name: str = "label_smoothed_cross_entropy_mos", **options):
    """The task's criterion, made as fairseq does."""
    defaults = {"sentence_avg": False, "label_smoothing": 0.1, "report_accuracy": False, "ignore_prefix_size": 0}
    defaults = {"sentence_avg": False} if name == "cross_entropy" else defaults
    return task.build_criterion(OmegaConf.create({"_name": name, **defaults, **options}))


@pytest.mark.parametrize("at_once", [False, True])
def test_accuracy_of_each_subnet(make_task, make_model, at_once):
    task = make_task(valid_subnets=",".join(SPECS.values()))
    model, criterion = make_model(task), with_criterion(task, report_accuracy=True)
    samples = references(task, model)  # mostly the largest subnet's output
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SAMPLES", samples)
        found = validate(task, model, criterion, at_once)
    expected = {}
    for name, spec in SPECS.items():
        model.set_active_subnet(resolve_subnet(spec, SPACE))
        right = total = 0
        for sample in samples:
            real = sample["target"].ne(task.tgt_dict.pad())
            with torch.no_grad():
                right += int((model(**sample["net_input"])[0].argmax(-1) == sample["target"])[real].sum())
            total += int(real.sum())
        expected[name] = round(100 * right / total, 3)
    assert {name: found[f"accuracy_{name}"] for name in SPECS} == expected
    assert found["accuracy"] == pytest.approx(sum(expected.values()) / 3, abs=1e-3)
    assert len(set(expected.values())) > 1


# --- the best checkpoint ---


def begin(make_task, make_model, metric: str, criterion: dict | None = None, data: bool = True, **options):
    """A training's first epoch begins."""
    task = make_task(**{"valid_subnets": ",".join(SPECS.values()), "best_checkpoint_metric": metric} | options)
    model = make_model(task)
    with_criterion(task, **criterion or {})
    if data:
        rows = [torch.tensor([5, 6, 7, 2]), torch.tensor([8, 2]), torch.tensor([9, 4, 2])]
        sizes = [len(row) for row in rows]
        words = task.src_dict
        task.datasets["valid"] = LanguagePairDataset(rows, sizes, words, rows, sizes, words)
    chosen = model.sample_subnet("begin")
    task.begin_epoch(1, model)
    assert model.active_subnet is chosen
    return task, model


ACCURACY, DISTILLATION = {"report_accuracy": True}, {"name": "distillation_mos"}
MEASURED = [
    *[(metric, {}) for metric in ("loss", "loss_largest", "nll_loss", "ppl_random7", "nll_loss_smallest")],
    ("num_updates", {}),
    *[(metric, {"criterion": ACCURACY}) for metric in ("accuracy", "accuracy_largest", "accuracy_random7")],
    *[(metric, {"eval_bleu": True, "eval_bleu_args": BEAM}) for metric in ("bleu", "bleu_random7")],
    *[(metric, {"criterion": {"name": "cross_entropy"}}) for metric in ("loss", "loss_smallest", "ppl_largest")],
    ("nll_loss", {"criterion": DISTILLATION}),
]
NOT_MEASURED = [
    *[(metric, {}) for metric in ("loss_smalest", "bleu", "bleu_largest", "nll_loss_middle", "wer", "accuracy")],
    ("accuracy_largest", {"criterion": DISTILLATION}),
    ("accuracy_middle", {"criterion": ACCURACY}),
    ("distillation_loss_smallest", {"criterion": DISTILLATION}),  # of training
    ("nll_loss_largest", {"criterion": {"name": "cross_entropy"}}),
    ("bleu_middle", {"eval_bleu": True, "eval_bleu_args": BEAM}),
]


@pytest.mark.parametrize(("metric", "options"), MEASURED)
def test_a_metric_that_is_measured(make_task, make_model, metric, options):
    begin(make_task, make_model, metric, **options)


@pytest.mark.parametrize(("metric", "options"), NOT_MEASURED)
def test_a_metric_that_is_not_measured_is_refused_before_training(make_task, make_model, metric, options):
    match = f"best_checkpoint_metric is {metric}: measured are .*loss.*, ppl.* one of largest, smallest, random7"
    with pytest.raises(InputError, match=match):
        begin(make_task, make_model, metric, **options)


def test_a_metric_does_not_matter_without_validation(make_task, make_model):
    begin(make_task, make_model, "loss_smalest", data=False)


def test_what_was_measured_is_found_once(make_task, make_model):
    """At the beginning, and without a trace in the random numbers of the training."""
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    task, model = begin(make_task, make_model, "ppl")
    torch.set_rng_state(before[0])
    task, model = begin(make_task, make_model, "loss")
    after_loss = torch.get_rng_state()
    torch.set_rng_state(before[0])
    task, model = begin(make_task, make_model, "ppl")
    assert torch.equal(torch.get_rng_state(), after_loss) and np.random.get_state()[1].tolist() == before[1]
    task.cfg.best_checkpoint_metric = "other"
    task.begin_epoch(2, model)


@pytest.mark.parametrize(
    ("metric", "maximize", "options"),
    [
        ("accuracy_largest", False, {"criterion": ACCURACY}),
        ("bleu", False, {"eval_bleu": True, "eval_bleu_args": BEAM}),
        ("loss", True, {}),
        ("ppl_smallest", True, {}),
        ("nll_loss", True, {}),
    ],
)
def test_the_worst_checkpoint_as_the_best(make_task, make_model, caplog, metric, maximize, options):
    for wrong in (True, False):
        caplog.clear()
        begin(make_task, make_model, metric, maximize_best_checkpoint_metric=maximize == wrong, **options)
        (*lines,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(lines) == wrong
        assert all(f"best_checkpoint_metric is {metric}" in line and "the worst" in line for line in lines)
