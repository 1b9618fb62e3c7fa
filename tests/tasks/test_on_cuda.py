"""On a (simulated) GPU an update equals the CPU's, and causes no more host waits than stock fairseq's."""

from __future__ import annotations

import copy
import pickle
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import base_architecture
from fairseq.tasks import FairseqTask

from mos_fairseq.criterions import DistillationMosCriterion
from mos_fairseq.models import TransformerMosConfig, TransformerMosModel, placeholder_dictionary
from mos_fairseq.modules import PaddingMemo
from mos_fairseq.search_space import SearchSpace
from tests.helpers import batch, fake_task, language_model, sample_of, small_space, supernet
from tests.pretend_cuda import pretend_cuda

OPTIMIZER = SimpleNamespace(backward=lambda loss: loss.backward())
SAMPLES = [sample_of(*batch(seed=3)), sample_of(*batch(lengths=((3, 9), (5, 2)), seed=4))]
ROUTINGS = {
    "none": {"mos_routing": "none"},
    "layer, 3 experts": {"mos_routing": "layer", "num_experts": 3, "mos_linears": "all"},
    "neuron": {"mos_routing": "neuron", "mos_linears": "all"},
}


def gradients(task, model, criterion, samples) -> dict[str, torch.Tensor | None]:
    for update, sample in enumerate(samples):
        task.train_step(sample, model, criterion, OPTIMIZER, update)
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(("routing", "taught"), [("none", False), ("layer, 3 experts", True), ("neuron", True)])
def test_gradients_are_those_of_the_cpu(make_task, make_model, make_criterion, routing, taught):
    task, samples = make_task(), SAMPLES[:1]
    model = make_model(task, **ROUTINGS[routing])
    alpha = {"distillation": "alpha", "distillation_weight": 0.5, "hidden_weight": 0.1}
    criterion = DistillationMosCriterion(task, False, 0.1, **alpha) if taught else make_criterion(task)
    expected = gradients(task, model, criterion, samples)
    model.zero_grad(set_to_none=True)
    with pretend_cuda():
        found = gradients(task, model.to("cuda"), criterion, utils.move_to_cuda(samples))
    for name, grad in expected.items():
        assert (grad is None) == (found[name] is None), name  # absent layers
        if grad is not None:
            torch.testing.assert_close(found[name].values, grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_language_model_trains(make_criterion):
    (tokens, previous, target) = batch()
    sample = {"net_input": {"src_tokens": previous}, "target": target, "ntokens": 12, "nsentences": 3}
    with pretend_cuda() as waits:
        model, criterion = language_model(mos_routing="neuron").to("cuda"), make_criterion(fake_task())
        sample = utils.move_to_cuda(sample)
        for subnet in (model.search_space.smallest(), model.search_space.largest()):
            waits.clear()
            model.set_active_subnet(subnet)
            criterion(model, sample)[0].backward()
        assert not waits  # whether the batch is padded was asked for the first subnet


@pytest.mark.slow
def test_dropout_and_merged_weights_stay_on_the_device(make_task, make_model, make_criterion):
    task = make_task()
    with pretend_cuda():
        rates = {"dropout": 0.2, "attention_dropout": 0.1, "activation_dropout": 0.1, "router_dropout": 0.1}
        model = make_model(task, mos_routing="neuron", **rates).to("cuda")
        found = gradients(task, model, make_criterion(task), utils.move_to_cuda(SAMPLES[:1]))
        assert all(grad.is_cuda for grad in found.values())
        sample = utils.move_to_cuda(SAMPLES[0])
        _, _, log = task.valid_step(sample, model.eval(), make_criterion(task))
        assert log["loss@smallest"].is_cuda
        twin = model.get_active_subnet()
        assert all(tensor.is_cuda for tensor in twin.state_dict().values())
        with torch.no_grad():
            expected = model(**sample["net_input"])[0]
            torch.testing.assert_close(twin(**sample["net_input"])[0].values, expected.values)


# --- waiting ---


def stock_model() -> TransformerModel:
    """Of six encoder layers, as WMT's."""
    each = {"layers": 6, "embed_dim": 24, "ffn_embed_dim": 32, "attention_heads": 4}
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in each.items()}
    sizes |= {"decoder_layers": 2}
    args = Namespace(share_all_embeddings=True, max_source_positions=50, max_target_positions=50, **sizes)
    base_architecture(args)
    return TransformerModel.build_model(args, fake_task())


@pytest.mark.slow
def test_an_update_waits_no_more_than_stock_fairseqs(make_task, make_model, make_criterion):
    """Of every mini-batch the host asks once whether it is padded, for three subnets and both sides, and of every
    update it reads the metrics: 2. Stock fairseq, for one model, asks for each encoder layer and in the decoder: 7."""
    with pretend_cuda() as waits:
        task, samples = make_task(search_space=small_space(encoder_layers=[6, 1]).dumps()), utils.move_to_cuda(SAMPLES)
        stock, theirs = stock_model().to("cuda"), LabelSmoothedCrossEntropyCriterion(fake_task(), False, 0.1)
        model = make_model(task, mos_routing="neuron").to("cuda")
        criteria = [make_criterion(task), DistillationMosCriterion(task, False, 0.1, hidden_weight=0.1)]
        for sample in samples[::-1]:  # with the longest, tables of positions and masks are made
            waits.clear()
            FairseqTask.train_step(task, sample, stock, theirs, OPTIMIZER, 0)
        assert len(waits) == 7, waits
        for criterion in criteria:
            for update, sample in enumerate(samples):
                sample = utils.move_to_cuda(utils.move_to_cpu(sample))
                waits.clear()
                _, size, log = task.train_step(sample, model, criterion, OPTIMIZER, update)
            logged = [wait.line for wait in waits]
            assert len(logged) == 1 and "padding.py" in logged[0], logged
            with metrics.aggregate(new_root=True):
                waits.clear()
                task.reduce_metrics([log, log], criterion)
                assert [wait.line.split(":")[0] for wait in waits] == ["mos_fairseq/tasks/subnet_metrics.py"]


@pytest.mark.slow
@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_fixed_subnet_reads_nothing(use_kernels, routing):
    """As in a CUDA graph: a subnet is chosen, a batch is at fixed addresses, and the graph's owner declares it padded.
    Then neither forward nor backward waits, copies between devices, or depends on values."""
    use_kernels(remade_mixture=1)
    with pretend_cuda() as waits:
        model = supernet(**ROUTINGS[routing], dropout=0.1).to("cuda")
        inputs = utils.move_to_cuda(SAMPLES[0]["net_input"])
        source, previous = inputs["src_tokens"], inputs["prev_output_tokens"]
        model.set_active_subnet(model.search_space.sample_subnet("graph"))
        for step in range(2):  # in the first, tables of positions and masks are made
            source.sub_(source.gt(10).long(), alpha=step)
            for stack, tokens in ((model.encoder, source), (model.decoder, previous)):
                stack.padding_memo.learn(tokens, True)
            waits.clear()
            waits.copies.clear()
            model(source, inputs["src_lengths"], previous)[0].sum().backward()
        assert not waits and not waits.copies


@pytest.mark.slow
def test_bad_losses_are_told_without_waiting(make_task, make_model, make_criterion, caplog, monkeypatch):
    task = make_task()
    bad = task.training_subnets(1)[1][1]
    criterion = make_criterion(task)

    def spoiled(model, sample):
        loss, size, log = criterion(model, sample)
        return (loss * float("nan") if model.active_subnet == bad else loss), size, log

    with pretend_cuda() as waits:
        model, sample = make_model(task).to("cuda"), utils.move_to_cuda(SAMPLES[0])
        task.train_step(sample, model, spoiled, OPTIMIZER, 0)
        arrived: list[bool] = []
        monkeypatch.setattr(torch.cuda.Event, "query", lambda event: bool(arrived))
        caplog.clear()
        waits.clear()
        task.train_step(sample, model, spoiled, OPTIMIZER, 1)
        assert not waits and not caplog.records
        arrived.append(True)
        task.train_step(sample, model, criterion, OPTIMIZER, 1)  # fairseq repeats it to find bad values
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"update 2: the loss of subnet random is nan: {bad.summary()}"]


def test_a_memo_is_of_these_tokens_as_they_are():
    memo = PaddingMemo()
    with pretend_cuda() as waits:
        tokens = torch.tensor([[4, 5, 2], [1, 6, 2]]).to("cuda")
        waits.clear()
        assert memo.any(tokens, tokens.eq(1)) and memo.any(tokens, tokens.eq(1)) and len(waits) == 1
        tokens[1, 0] = 7
        assert not memo.any(tokens, tokens.eq(1))  # written to
        other = tokens.clone()
        other[0, 0] = 1
        assert memo.any(other, other.eq(1)) and not memo.any(tokens, tokens.eq(1))
        assert not PaddingMemo().knows(tokens) and memo.knows(tokens)
    for answer in (True, False):
        assert memo.any(torch.ones(1, 1), torch.tensor([[answer]])) == answer


def test_models_are_not_held_by_what_they_remember():
    model = supernet()
    with pretend_cuda():
        tokens = torch.tensor([[4, 2]]).to("cuda")
        model.encoder.padding_memo.learn(tokens, True)
        assert model.encoder.padding_memo.knows(tokens)
        assert not copy.deepcopy(model).encoder.padding_memo.knows(tokens)
    assert not pickle.loads(pickle.dumps(model)).encoder.padding_memo.knows(tokens)


# --- without memory ---


@pytest.mark.slow
@pytest.mark.parametrize("routing", ["none", "neuron"])
def test_supernets_of_full_size_are_built_on_meta(routing):
    space, words = SearchSpace.from_spec("wmt14_en_de"), placeholder_dictionary(32768)
    positions = {"max_source_positions": 1024, "max_target_positions": 1024}
    cfg = TransformerMosConfig(search_space=space.dumps(), mos_routing=routing, share_all_embeddings=True, **positions)
    with torch.device("meta"):
        model = TransformerMosModel.from_search_space(cfg, space, words, words)
        assert all(parameter.is_meta for parameter in model.parameters())
        for subnet in (space.smallest(), space.largest()):
            model.set_active_subnet(subnet)
            logits, _ = model(torch.ones(2, 5, dtype=torch.long), None, torch.ones(2, 3, dtype=torch.long))
            assert logits.shape == (2, 3, 32768) and logits.is_meta


# --- autocast ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("routing", ["layer", "neuron"])
def test_routers_and_distillation_are_in_fp32_under_autocast(routing, dtype):
    with pretend_cuda():
        model = supernet(mos_routing=routing, router_dropout=0.0).to("cuda")
        model.set_active_subnet(model.search_space.smallest())
        layer = model.encoder.layers[0]
        expected = layer.mixing_probs()
        task = SimpleNamespace(**vars(fake_task()), cfg=SimpleNamespace(subnet_sampling="sandwich"))
        criterion = DistillationMosCriterion(task, False, 0.1, distillation_weight=0.5)
        logits, teacher = (torch.randn(40, 50, 31, device="cuda").to(dtype) * 3 for _ in range(2))
        target = torch.randint(4, 31, (40, 50)).to("cuda")
        losses = criterion._distill(logits, teacher, target)
        with torch.autocast("cuda", dtype):
            assert model(torch.tensor([[4, 2]]).to("cuda"), None, torch.tensor([[2, 4]]).to("cuda"))[0].dtype == dtype
            found = layer.mixing_probs()
            again = criterion._distill(logits, teacher, target)
        for name, probs in found.items():
            assert probs.dtype == torch.float32 and torch.equal(probs.values, expected[name].values)
        for loss, same in zip(losses, again, strict=True):
            assert same.dtype == torch.float32 and torch.equal(loss.values, same.values)


@pytest.mark.slow
@pytest.mark.parametrize("routing", ROUTINGS)
def test_gradients_under_autocast_are_about_those_of_fp32(make_task, make_model, make_criterion, routing):
    task = make_task()
    model = make_model(task, **ROUTINGS[routing])
    expected = gradients(task, model, make_criterion(task), SAMPLES)
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(task, model, make_criterion(task), SAMPLES)
    for name, grad in expected.items():
        assert (grad is None) == (found[name] is None), name
        if grad is not None:
            # bf16 has 8 bits; a gradient that is missing, doubled or of another sign is off by its norm or more
            assert (found[name] - grad).norm() < 0.5 * grad.norm() + 1e-3, name
