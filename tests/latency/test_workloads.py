"""Timed work matches the workload's name, for families that support it."""

from __future__ import annotations

import pytest
import torch

from mos_fairseq.errors import InputError
from mos_fairseq.latency import LatencyOptions, SubnetTimer
from mos_fairseq.latency.timer import options_dict
from mos_fairseq.search_space import FAMILIES, SearchSpace
from tests.helpers import dictionary, small_space
from tests.spaces import BERT_SPACE, LM_SPACE

SIZES = {"vocab_size": 31, "iterations": 5, "batch_size": 2}
SPACES = {
    "encoder_decoder": small_space(),
    "decoder_only": SearchSpace.from_dict(LM_SPACE),
    "encoder_only": SearchSpace.from_dict(BERT_SPACE),
}
CASES = [(name, workload) for name, family in FAMILIES.items() for workload in family.workloads]


def timer(family: str, **options) -> SubnetTimer:
    length = {"src_len" if family == "encoder_only" else "tgt_len": 6}
    return SubnetTimer(SPACES[family].smallest(), LatencyOptions(**SIZES | length | options), dictionary())


def decoded(running: SubnetTimer) -> list[torch.Size]:
    """Return the shapes of the tokens that the last stack gets in one run, including earlier ones."""
    shapes, last = [], getattr(running.model, running.model.family.output)
    forward = last.forward

    def spy(tokens, *args, **kwargs):
        shapes.append(tokens.shape)
        return forward(tokens, *args, **kwargs)

    last.forward = spy
    running.run()
    return shapes


@pytest.mark.parametrize(("family", "workload"), CASES)
def test_every_workload_does_its_work(family, workload):
    running = timer(family, workload=workload, **({} if workload in ("forward", "features") else {"beam": 3}))
    shapes = decoded(running)
    if workload in ("forward", "features"):
        assert shapes == [(2, 6)]
    else:
        assert shapes == [(6, length) for length in range(1, 7)]
    latency = running.run()
    assert latency.decoder_ms > 0
    apart = workload == "beam_search"
    assert (latency.encoder_ms is not None) == apart and latency.latency_ms >= latency.decoder_ms


def test_the_usual_workload_is_the_familys_first():
    for name, family in FAMILIES.items():
        assert timer(name).options.workload == family.workloads[0]


def test_files_that_name_no_workload_are_of_beam_search():
    options = LatencyOptions(vocab_size=31).of_family(FAMILIES["encoder_decoder"])
    assert "workload" not in options_dict(options)
    assert LatencyOptions(**options_dict(options)).of_family(FAMILIES["encoder_decoder"]) == options
    other = LatencyOptions(vocab_size=31, workload="forward").of_family(FAMILIES["encoder_decoder"])
    assert options_dict(other)["workload"] == "forward"


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("decoder_only", {"workload": "beam_search"}, "workload is beam_search: allowed for family decoder_only are"),
        ("encoder_decoder", {"workload": "generate"}, "workload is generate: allowed for family encoder_decoder are"),
        ("encoder_only", {"workload": "generate"}, "workload is generate: allowed for family encoder_only are f"),
        ("encoder_only", {"tgt_len": 7}, "tgt_len is 7: it has no effect on subnets of family encoder_only"),
        ("encoder_only", {"layernorm_embedding": True}, "layernorm_embedding is True: it has no effect on subnets"),
        ("decoder_only", {"untie_weights_roberta": True}, "untie_weights_roberta is True: it has no effect on subnets"),
        ("encoder_only", {"beam": 3}, "beam is 3: it has no effect with workload features"),
        ("decoder_only", {"src_len": 7}, "src_len is 7: it has no effect on subnets of family decoder_only"),
        ("decoder_only", {"encoder_normalize_before": True}, "encoder_normalize_before is True: it has no effect on"),
        ("decoder_only", {"decoder_normalize_before": True}, "decoder_normalize_before is True: it has no effect on"),
        ("encoder_decoder", {"workload": "forward", "beam": 3}, "beam is 3: it has no effect with workload forward"),
    ],
)
def test_what_has_no_effect_is_refused(family, options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        LatencyOptions(**SIZES | options).of_family(FAMILIES[family])
