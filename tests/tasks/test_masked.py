"""Updates of masked language models' supernets: predicted words, teachers, and the sum over an update."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions.masked_lm import MaskedLmConfig, MaskedLmLoss
from omegaconf import OmegaConf

from mos_fairseq.cost import subnet_cost
from mos_fairseq.criterions import DistillationMosCriterion, LabelSmoothedCrossEntropyMosCriterion
from mos_fairseq.errors import InputError
from mos_fairseq.masked import masked_only, predicted_tokens, summed_loss
from mos_fairseq.models.switches import keep_active_subnet
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.tasks import MaskedLmMosConfig, MaskedLmMosTask
from tests.helpers import dictionary, perturb
from tests.models.test_masked_language_model import sentences
from tests.spaces import BERT_SPACE, BOTTLENECK_SPACE, FACTORISED_SPACE

OPTIMIZER = SimpleNamespace(backward=lambda loss: loss.backward())
PAD, MASK = 1, 31
SPACES = {"uniform": BERT_SPACE, "factorised": FACTORISED_SPACE, "bottleneck": BOTTLENECK_SPACE}


def make(space: dict = BERT_SPACE, **options):
    """(task, model): every parameter moved from its initial value, no dropout."""
    space = SearchSpace.from_dict(space).dumps()
    best = {"best_checkpoint_metric": "loss", "maximize_best_checkpoint_metric": False, "valid_subset": "valid"}
    values = {"search_space": space, "seed": 1, "log_interval": 100, "tokens_per_sample": 50} | best
    values["subnet_sampling"] = "sandwich"
    task = MaskedLmMosTask(MaskedLmMosConfig(**values | options), dictionary())
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "router_dropout": 0.0, "max_positions": 50}
    model = task.build_model(OmegaConf.create({"model": {"_name": "roberta_mos", **rates}}).model)
    perturb(model)
    return task, model.train()


def sample(seed: int = 3) -> dict:
    """Return a mini-batch with some masked words."""
    tokens = sentences(seed)
    generator = torch.Generator().manual_seed(seed)
    masked = tokens.gt(3) & torch.rand(tokens.shape, generator=generator).lt(0.5)
    net_input = {"src_tokens": tokens.masked_fill(masked, MASK), "src_lengths": tokens.ne(PAD).sum(1)}
    target = tokens.masked_fill(~masked, PAD)
    return {"net_input": net_input, "target": target, "ntokens": int(tokens.ne(PAD).sum()), "nsentences": len(tokens)}


def gradients(model) -> dict[str, torch.Tensor]:
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def test_our_cross_entropy_is_fairseqs_masked_lm():
    task, model = make()
    stock = MaskedLmLoss(MaskedLmConfig(tpu=False), task)
    ours = LabelSmoothedCrossEntropyMosCriterion(task, sentence_avg=False, label_smoothing=0.0, report_accuracy=True)
    found = []
    for criterion in (stock, ours):
        loss, size, log = criterion(model, sample())
        loss.backward()
        found.append((loss.detach(), int(size), gradients(model)))
    assert found[0][1] == found[1][1] == int(sample()["target"].ne(PAD).sum()) == int(log["total"])
    torch.testing.assert_close(found[1][0], found[0][0])
    for name, gradient in found[0][2].items():
        torch.testing.assert_close(found[1][2][name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [LabelSmoothedCrossEntropyMosCriterion, DistillationMosCriterion])
def test_sentences_are_those_of_the_batch(kind):
    """Not the masked words, which are the rows of the target."""
    task, model = make()
    for average, size in ((True, 3), (False, int(sample()["target"].ne(PAD).sum()))):
        _, found, log = kind(task, average, 0.1)(model, sample())
        assert (log["nsentences"], int(found), int(log["sample_size"])) == (3, size, size)


def test_the_hidden_distance_is_averaged_over_sentences_too():
    task, model = make()
    found = []
    for average in (True, False):
        criterion = DistillationMosCriterion(task, average, 0.0, distillation_weight=0.0, hidden_weight=1.0)
        criterion.teach(1, 0)
        criterion(model, sample())
        with keep_active_subnet(model):
            model.set_active_subnet(model.search_space.smallest())
            _, size, log = criterion(model, sample())
        found.append(float(log["hidden_loss"]) / int(size))
    assert found[0] == pytest.approx(found[1], rel=1e-5) and found[0] > 0


def test_metrics_are_looked_for_in_an_example_with_masked_words():
    """The shortest one has none, and without any word there is no accuracy."""
    task, model = make(valid_subnets="largest")
    batch = sample()
    batch["target"][1] = PAD
    inputs, target = batch["net_input"], batch["target"]
    rows = [{key: inputs[key][i] for key in inputs} | {"target": target[i]} for i in (1, 0)]

    class Examples(list):
        sizes = [5, 9]

        def collater(self, found):
            net_input = {key: torch.stack([row[key] for row in found]) for key in inputs}
            target = torch.stack([row["target"] for row in found])
            return {"net_input": net_input, "target": target, "ntokens": target.numel(), "nsentences": len(found)}

    criterion = LabelSmoothedCrossEntropyMosCriterion(task, False, 0.1, report_accuracy=True)
    assert "accuracy_largest" in task._measured_metrics(Examples(rows), model, criterion)


def test_students_learn_at_masked_words_only():
    """In place: the divergence from the largest subnet's words, summed over masked words, and layers' distance."""
    task, model = make()
    criterion = DistillationMosCriterion(task, False, 0.0, distillation_weight=0.7, hidden_weight=0.3)
    space, mini_batch = task.search_space, sample()
    task.train_step(mini_batch, model, criterion, OPTIMIZER, update_num=0)
    found = gradients(model)
    subnets = [subnet for _, subnet in task.training_subnets(0)]
    assert subnets[0] == space.largest() and subnets[-1] == space.smallest()
    target = mini_batch["target"]
    masked, real = target.ne(PAD), mini_batch["net_input"]["src_tokens"].ne(PAD)
    teacher = None
    for subnet in subnets:
        model.set_active_subnet(subnet)
        logits, extra = model(mini_batch["net_input"]["src_tokens"], return_all_hiddens=True)
        states = [state.transpose(0, 1)[real] for state in extra["inner_states"][1:]]
        loss = F.cross_entropy(logits[masked], target[masked], reduction="sum")
        if teacher is None:
            teacher = logits[masked].detach(), [state.detach() for state in states]
        else:
            log_p, log_q = (z.log_softmax(-1) for z in (teacher[0], logits[masked]))
            divergence = (log_p.exp() * (log_p - log_q)).sum()
            count = len(states)
            pairs = [(s, teacher[1][-(-(i + 1) * len(teacher[1]) // count) - 1]) for i, s in enumerate(states)]
            distance = sum((s - t[:, : s.size(-1)]).square().mean() for s, t in pairs) / count
            loss = 0.3 * loss + 0.7 * divergence + 0.3 * distance * masked.sum()
        loss.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("space", SPACES)
def test_micro_batches_of_an_update_train_the_same_subnets(space):
    """Gradients of two micro-batches equal those of one batch of both (--update-freq 2)."""
    task, model = make(SPACES[space])
    criterion = MaskedLmLoss(MaskedLmConfig(tpu=False), task)
    parts = [sample(3), sample(4)]
    whole = {key: torch.cat([part[key] for part in parts]) for key in ("target",)}
    tokens = torch.cat([part["net_input"]["src_tokens"] for part in parts])
    whole |= {"net_input": {"src_tokens": tokens}, "ntokens": 1, "nsentences": 6}
    sizes = [task.train_step(part, model, criterion, OPTIMIZER, update_num=5)[1] for part in parts]
    accumulated = gradients(model)
    _, size, _ = task.train_step(whole, model, criterion, OPTIMIZER, update_num=5)
    assert int(sum(sizes)) == int(size) == 3 * int(whole["target"].ne(PAD).sum())
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(accumulated[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_the_seed_and_the_update_decide_what_trains():
    tasks = {seed: make(seed=seed)[0] for seed in (1, 2)}
    draws = {(seed, update): tasks[seed].training_subnets(update)[1][1] for seed in tasks for update in (0, 1, 2)}
    assert len(set(draws.values())) > 3 and draws[1, 0] == make(seed=1)[0].training_subnets(0)[1][1]


@pytest.mark.parametrize("space", SPACES)
def test_the_smallest_subnet_is_the_smallest(space):
    space = SearchSpace.from_dict(SPACES[space] | {"encoder_layers": [2, 1]})
    costs = {subnet: subnet_cost(subnet).params_without_embeddings for subnet in space.iterate()}
    assert min(costs.values()) == costs[space.smallest()] and max(costs.values()) == costs[space.largest()]


def test_every_ratio_is_drawn():
    data = {key: value for key, value in BOTTLENECK_SPACE.items() if key != "encoder_ffn_embed_dim"}
    space = SearchSpace.from_dict(data | {"encoder_ffn_ratio": [400, 200, 50]})
    drawn = {ratio for i in range(20) for ratio in space.sample_subnet(i).encoder_ffn_ratio}
    assert drawn == {400, 200, 50}


def test_a_mini_batch_of_which_nothing_is_masked():
    task, model = make()
    nothing = sample() | {"target": torch.full((3, 9), PAD)}
    assert predicted_tokens(model, nothing, PAD) == 0 and float(summed_loss(model, nothing, PAD)) == 0
    ours = LabelSmoothedCrossEntropyMosCriterion(task, sentence_avg=False, label_smoothing=0.1)
    assert float(ours(model, nothing)[0]) == 0
    assert masked_only(sample(), PAD)["net_input"]["masked_tokens"].sum() == sample()["target"].ne(PAD).sum()


def test_a_prefix_cannot_be_ignored():
    task, _ = make()
    with pytest.raises(InputError, match="^ignore_prefix_size is 2: masked language models predict no prefix$"):
        LabelSmoothedCrossEntropyMosCriterion(task, False, 0.1, ignore_prefix_size=2)
