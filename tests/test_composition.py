"""tests/composition.py composes what hydra composes, from what it remembers and from what another process left."""

import importlib
from argparse import Namespace

import pytest
from hydra import experimental
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from tests import composition
from tests.cli.conftest import training

HYDRAS = {"initialize": experimental.initialize, "compose": experimental.compose, "OmegaConf": OmegaConf}


def parsed(*options: object) -> Namespace:
    from fairseq import options as of_fairseq

    words = list(map(str, training("data", "save", *options, space="tiny")))
    return of_fairseq.parse_args_and_arch(of_fairseq.get_training_parser(), input_args=words)


@pytest.mark.slow
def test_it_equals_hydras(monkeypatch, tmp_path):
    utils = importlib.import_module("fairseq.dataclass.utils")
    for name in composition.replacements():
        monkeypatch.setattr(utils, name, HYDRAS[name])
    runs = [
        parsed(),
        parsed("--seed", 7, "--lr", "0.1,0.2", "--valid-subnets", "largest"),
        parsed("--arch", "transformer"),
    ]
    expected = [utils.convert_namespace_to_omegaconf(run) for run in runs]
    assert expected[0] != expected[1]
    for name in ("_composed", "_untyped", "_parsed"):
        monkeypatch.setattr(composition, name, {})
    monkeypatch.setattr(composition, "_folder", tmp_path)
    for name, mine in composition.replacements().items():
        monkeypatch.setattr(utils, name, mine)
    for run, cfg in zip(runs, expected, strict=True):
        for _ in range(2):
            assert_equal(utils.convert_namespace_to_omegaconf(run), cfg)
    assert len(list(tmp_path.iterdir())) == 2
    composition._parsed.clear()
    assert_equal(utils.convert_namespace_to_omegaconf(runs[1]), expected[1])
    composition.learn()  # as in a fork
    made = list(map(id, composition._untyped.values()))
    for run, cfg in zip(runs[1:], expected[1:], strict=True):
        found = utils.convert_namespace_to_omegaconf(run)
        assert id(found) in made
        assert_equal(found, cfg)


def assert_equal(found: DictConfig, expected: DictConfig) -> None:
    """With the kinds of all nodes, and their flags."""
    assert repr(found) == repr(expected) and repr(found._metadata) == repr(expected._metadata)
    assert nodes_of(found) == nodes_of(expected)


def nodes_of(cfg: DictConfig) -> dict[str, object]:
    return {
        key: nodes_of(node) if isinstance(node, DictConfig) else (type(node), repr(node), repr(node._metadata))
        for key, node in cfg._content.items()
    }


@pytest.mark.slow
def test_values_of_another_type_are_refused_as_by_hydra(monkeypatch):
    utils = importlib.import_module("fairseq.dataclass.utils")
    run = parsed()
    run.ddp_backend = "carrier_pigeon"
    for replaced in (HYDRAS, composition.replacements()):
        for name, function in replaced.items():
            monkeypatch.setattr(utils, name, function)
        with pytest.raises(ConfigCompositionException, match="merging override .*ddp_backend"):
            utils.convert_namespace_to_omegaconf(run)
