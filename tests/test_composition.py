"""tests/composition.py composes what hydra composes, from what it remembers and from what another process left."""

import importlib
from argparse import Namespace

import pytest
from hydra.errors import ConfigCompositionException

from tests import composition
from tests.cli.conftest import training


def parsed(*options: object) -> Namespace:
    from fairseq import options as of_fairseq

    words = list(map(str, training("data", "save", *options, space="tiny")))
    return of_fairseq.parse_args_and_arch(of_fairseq.get_training_parser(), input_args=words)


@pytest.mark.slow
def test_it_equals_hydras(monkeypatch, tmp_path):
    utils = importlib.import_module("fairseq.dataclass.utils")
    monkeypatch.setattr(utils, "compose", importlib.import_module("hydra.experimental").compose)
    runs = [
        parsed(),
        parsed("--seed", 7, "--lr", "0.1,0.2", "--valid-subnets", "largest"),
        parsed("--arch", "transformer"),
    ]
    expected = [utils.convert_namespace_to_omegaconf(run) for run in runs]
    assert expected[0] != expected[1]
    monkeypatch.setattr(composition, "_composed", {})
    monkeypatch.setattr(composition, "_parsed", {})
    monkeypatch.setattr(composition, "_folder", tmp_path)
    monkeypatch.setattr(utils, "compose", composition.compose)
    for run, cfg in zip(runs, expected, strict=True):
        for _ in range(2):
            assert str(utils.convert_namespace_to_omegaconf(run)) == str(cfg)
    assert len(list(tmp_path.iterdir())) == 2
    composition._parsed.clear()
    assert str(utils.convert_namespace_to_omegaconf(runs[1])) == str(expected[1])


@pytest.mark.slow
def test_values_of_another_type_are_refused_as_by_hydra(monkeypatch):
    utils = importlib.import_module("fairseq.dataclass.utils")
    run = parsed()
    run.ddp_backend = "carrier_pigeon"
    for compose in (importlib.import_module("hydra.experimental").compose, composition.compose):
        monkeypatch.setattr(utils, "compose", compose)
        with pytest.raises(ConfigCompositionException, match="merging override .*ddp_backend"):
            utils.convert_namespace_to_omegaconf(run)
