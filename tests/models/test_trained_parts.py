"""A static twin with few trained parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mos_fairseq.errors import InputError
from mos_fairseq.models import TransformerSubnetModel
from mos_fairseq.models.transformer_subnet import TransformerSubnetConfig
from tests.helpers import fake_task, small_space

OPTIONS = {"share_all_embeddings": True, "max_source_positions": 50, "max_target_positions": 50}


def twin(**options) -> TransformerSubnetModel:
    torch.manual_seed(1)
    cfg = TransformerSubnetConfig(subnet=small_space().smallest().key, **OPTIONS, **options)
    return TransformerSubnetModel.build_model(cfg, fake_task())


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_what_trains():
    everything = {name for name, _ in twin().named_parameters()}
    assert trained(twin()) == trained(twin(trained_parts="all")) == everything
    norms, biases = trained(twin(trained_parts="norms")), trained(twin(trained_parts="biases"))
    assert norms and all("norm" in name for name in norms)
    assert biases == {name for name in everything if name.endswith(".bias")}
    assert trained(twin(trained_parts="norms, biases")) == norms | biases < everything
    assert not any("embed_tokens" in name for name in norms | biases)


def test_no_such_part():
    with pytest.raises(InputError, match="trained_parts is norms,heads: allowed are all, or norms, biases with"):
        twin(trained_parts="norms,heads")
