"""Which kernels compute: chosen by the processor, switched off as a whole, and equal in what they give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mos_fairseq.criterions.divergence import DistillationLoss, DistillationOptions
from mos_fairseq.criterions.label_smoothed_cross_entropy_mos import LabelSmoothedCrossEntropyMosCriterion
from mos_fairseq.errors import InputError
from mos_fairseq.modules import Dropout, kernels, onednn
from tests.helpers import batch, decode_stepwise, fake_task, sample_of, supernet

# every choice is made for every size; a mixture of 3 rows of 8 has 24 elements
ALWAYS = replace(
    kernels.OTHER,
    packed_rows=1,
    packed_rows_of_small=1,
    large_weight=24,
    filled_weight=24,
    training_multiplications=1,
    gradient_rows=5,
    transposed_router=True,
    attention_queries=1,
    attention_keys=2,
    cache_room=2,
    remade_mixture=1,
    cpu_chunk=70,
)


@pytest.mark.parametrize(
    ("vendor", "family", "capability", "has_amx", "wanted"),
    [
        ("AuthenticAMD", 26, "AVX512", False, kernels.ZEN5),
        ("AuthenticAMD", 25, "AVX512", False, kernels.ZEN4),
        ("AuthenticAMD", 25, "AVX2", False, kernels.X86),  # Zen 3, whose family is Zen 4's
        ("AuthenticAMD", 26, "AVX2", False, kernels.X86),  # by ATEN_CPU_CAPABILITY
        ("AuthenticAMD", 27, "AVX512", False, kernels.X86),
        ("AuthenticAMD", None, "AVX512", False, kernels.X86),
        ("GenuineIntel", 6, "AVX512", True, kernels.INTEL_AMX),
        ("GenuineIntel", 6, "AVX512", False, kernels.X86),
        ("GenuineIntel", 26, "AVX2", False, kernels.X86),
        ("HygonGenuine", 25, "AVX512", False, kernels.X86),
        ("", None, "SVE256", False, kernels.OTHER),
        ("", None, "DEFAULT", False, kernels.OTHER),
    ],
)
def test_a_processor_has_a_policy(vendor, family, capability, has_amx, wanted):
    assert kernels.policy_of(vendor, family, capability, has_amx) is wanted


def test_only_measured_processors_multiply_by_onednn():
    thresholds = ("packed_rows", "packed_rows_of_small", "training_multiplications", "attention_queries")
    for policy in (kernels.X86, kernels.OTHER, kernels.TORCH):
        assert all(getattr(policy, name) == kernels.NEVER for name in thresholds), policy
    assert kernels.INTEL_AMX.training_multiplications == kernels.NEVER


@pytest.mark.parametrize("value", [None, "", "auto"])
def test_the_processor_decides(value, monkeypatch):
    if value is None:
        monkeypatch.delenv(kernels.SWITCH, raising=False)
    else:
        monkeypatch.setenv(kernels.SWITCH, value)
    assert kernels.chosen() in (kernels.ZEN5, kernels.ZEN4, kernels.INTEL_AMX, kernels.X86, kernels.OTHER)


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "torch")
    assert kernels.chosen() is kernels.TORCH and not kernels.TORCH.enabled
    monkeypatch.setenv(kernels.SWITCH, "mkl")
    with pytest.raises(InputError, match="MOS_FAIRSEQ_KERNELS is mkl in the environment: allowed are auto and torch"):
        kernels.chosen()


def test_a_policy_is_in_force_for_a_time():
    before = kernels.policy()
    with pytest.raises(KeyError), kernels.using(ALWAYS):
        assert kernels.policy() is ALWAYS
        raise KeyError
    assert kernels.policy() is before


def test_files_get_plain_values():
    found = kernels.OTHER.to_dict()
    assert found["name"] == "other" and found["packed_rows"] is None and found["cache_room"] == kernels.OTHER.cache_room


class Operators(TorchDispatchMode):
    """Names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(str(func))
        return func(*args, **(kwargs or {}))

    def foreign(self) -> set[str]:
        return {name for name in self.seen if not name.startswith("aten.")}


def decoded(routing: str) -> list[torch.Tensor]:
    """Token by token, beams of two; the first time weights are seen, and when they are known."""
    model = supernet(mos_routing=routing, mos_linears="all").eval()
    model.set_active_subnet(model.search_space.sample_subnet("kernels"))
    src, prev, _ = batch()
    rows = torch.arange(len(src)).repeat_interleave(2)
    with torch.inference_mode():
        encoder_out = model.encoder.reorder_encoder_out(model.encoder(src), rows)
        return [decode_stepwise(model, encoder_out, prev[rows]) for _ in range(2)]


def trained(routing: str) -> list[torch.Tensor]:
    """The largest subnet's label-smoothed loss and the smallest's distillation, and all gradients."""
    model = supernet(mos_routing=routing, mos_linears="all", dropout=0.0, router_dropout=0.0).train()
    criterion = LabelSmoothedCrossEntropyMosCriterion(fake_task(), False, 0.1)
    sample = sample_of(*batch())
    loss, _, _ = criterion(model, sample)
    loss.backward()
    teacher = model(**sample["net_input"])[0].detach()
    model.set_active_subnet(model.search_space.smallest())
    student, options = model(**sample["net_input"])[0], DistillationOptions(weight=0.7, label_smoothing=0.1)
    other = DistillationLoss.apply(
        student.flatten(0, 1), teacher.flatten(0, 1), sample["target"].flatten(), 1, options
    )[0]
    other.backward()
    return [loss, other, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.slow
@pytest.mark.skipif(not onednn.has_onednn(), reason="this torch has no oneDNN operators")
@pytest.mark.parametrize("routing", ["none", "layer", "neuron"])
@pytest.mark.parametrize("work", [decoded, trained])
def test_torchs_own_operators_give_the_same(work, routing):
    found = []
    for policy in (ALWAYS, kernels.TORCH):
        with kernels.using(policy), Operators() as operators:
            found.append(work(routing))
        foreign = operators.foreign()
        assert bool(foreign) == policy.enabled, foreign
    assert len(found[0]) == len(found[1])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, atol=2e-4, rtol=1e-4)


def test_torchs_own_operators_draw_the_masks_of_dropout():
    x, masks = torch.ones(1000), []
    for policy in (kernels.OTHER, kernels.TORCH):
        torch.manual_seed(1)
        with kernels.using(policy):
            masks.append(Dropout(0.5).train()(x))
    torch.manual_seed(1)
    assert torch.equal(masks[1], torch.nn.functional.dropout(x, 0.5)) and not torch.equal(*masks)
