"""Every option of the task under each of fairseq's commands: it acts, or is refused in one line."""

from __future__ import annotations

import copy
import importlib
import runpy
import sys
from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from fairseq import checkpoint_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.registry import REGISTRIES
from omegaconf import DictConfig, OmegaConf, open_dict

import mos_fairseq
from mos_fairseq.command import Command, calling_command
from mos_fairseq.errors import InputError
from mos_fairseq.standalone.configuration import COMPONENTS, component_fields
from mos_fairseq.tasks import (
    LanguageModelingMosConfig,
    LanguageModelingMosTask,
    MaskedLmMosConfig,
    MaskedLmMosTask,
    TranslationMosConfig,
    TranslationMosTask,
)
from mos_fairseq.tasks.supernet_config import SupernetTaskConfig

GOLDEN = Path(__file__).parents[1] / "golden"
USER_DIR = Path(mos_fairseq.__file__).parent
COMMANDS = ("train", "generate", "interactive", "validate")
ACTS, NEEDS = TranslationMosTask.option_table.acts, TranslationMosTask.option_table.needs
# option -> a value that is not the default; None: every command needs it
VALUES = {
    "data": None,
    "source_lang": None,
    "target_lang": None,
    "load_alignments": True,
    "left_pad_source": False,
    "left_pad_target": True,
    "max_source_positions": 19,
    "max_target_positions": 18,
    "upsample_primary": 2,
    "truncate_source": True,
    "num_batch_buckets": 3,
    "eval_bleu": True,
    "eval_bleu_args": '{"beam": 3}',
    "eval_bleu_detok": "nltk",
    "eval_bleu_detok_args": '{"some": true}',
    "eval_tokenized_bleu": True,
    "eval_bleu_remove_bpe": "@@",
    "eval_bleu_print_samples": True,
    "search_space": None,
    "subnet_sampling": "alternate",
    "num_random_subnets": 2,
    "cost_strata": 4,
    "smallest_interval": 3,
    "largest_until": 9,
    "controller_budget": "flops<=70%",
    "controller_from": 3,
    "controller_interval": 4,
    "controller_samples": 3,
    "controller_uniform": 0.5,
    "controller_subset": "test",
    "elastic_from": "decoder_layers:3",
    "subnets_per_rank": True,
    "local_updates": 3,
    "local_average": "all",
    "local_moments": "reset",
    "shard_data": True,
    "subnet": "smallest",
    "valid_subnets": "smallest",
}


def arguments(command: str, save_dir: Path, path: Path) -> list[str]:
    words = [str(GOLDEN), "--user-dir", "mos_fairseq", "--task", "translation_mos", "-s", "xx", "-t", "yy"]
    if command == "train":
        words += ["--arch", "transformer_mos", "--search-space", str(GOLDEN / "space.yaml"), "--optimizer", "adam"]
        words += ["--criterion", "label_smoothed_cross_entropy_mos", "--save-dir", str(save_dir)]
    else:
        words += ["--path", str(path if command == "validate" else GOLDEN / "none.pt")]
    return [*words, "--max-tokens", "50", "--num-workers", "0"]


@pytest.fixture(scope="module")
def modules():
    return {command: importlib.import_module(f"fairseq_cli.{command}") for command in COMMANDS}


@pytest.fixture
def typed(modules, monkeypatch, tmp_path):
    """What a command says, typed with further words. None goes far: training and validation find no pairs here, and
    generation no checkpoint."""
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(modules["validate"], "reset_logging", lambda: None)  # pytest's handlers among it

    def run(command: str, *more: str, path: Path = GOLDEN / "supernet.pt", main=None) -> str:
        monkeypatch.setattr(sys, "argv", [f"fairseq-{command}", *arguments(command, tmp_path, path), *more])
        with pytest.raises((InputError, ImportError)) as error:
            (main or modules[command].cli_main)()
        return str(error.value)

    return run


@pytest.fixture(scope="module")
def configurations(modules, tmp_path_factory) -> dict[str, DictConfig]:
    """Each command's configuration without further options, as fairseq makes it of a command line."""
    found, save_dir = {}, tmp_path_factory.mktemp("save")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        for command, module in modules.items():
            patch.setattr(sys, "argv", [f"fairseq-{command}", *arguments(command, save_dir, GOLDEN / "supernet.pt")])
            patch.setattr(module, "main", lambda cfg, command=command, **_: found.update({command: cfg}))
            module.cli_main()
    for name, cfg in found.items():  # fairseq-generate's main converts it itself
        found[name] = cfg if OmegaConf.is_config(cfg) else convert_namespace_to_omegaconf(cfg)
    return found


@pytest.fixture
def outcome(configurations, modules, monkeypatch):
    """What a command says with other options of its task, as ``typed``; it is called as by another program."""
    monkeypatch.setattr(modules["validate"], "reset_logging", lambda: None)

    def run(command: str, **options) -> str:
        cfg = copy.deepcopy(configurations[command])
        with open_dict(cfg):
            cfg.task.update(options)
        given = {"override_args": Namespace(**options, data=str(GOLDEN), source_lang="xx", target_lang="yy")}
        with pytest.raises((InputError, ImportError)) as error:
            modules[command].main(cfg, **given if command == "validate" else {})
        return str(error.value)

    return run


def was_refused(message: str) -> bool:
    """The other outcomes are those of what is missing."""
    refused = "has no effect" in message and "\n" not in message
    others = ("holds no valid pairs", "none.pt: no such file", "Please install nltk", "no option of space")
    assert refused or any(other in message for other in others), message
    return refused


TASKS = [
    (TranslationMosTask, TranslationMosConfig),
    (LanguageModelingMosTask, LanguageModelingMosConfig),
    (MaskedLmMosTask, MaskedLmMosConfig),
]


@pytest.mark.parametrize(("task", "config"), TASKS)
def test_defaults_are_those_of_hydra(task, config):
    """Without a recipe, fairseq-hydra-train and fairseq-train mean the same."""
    written = yaml.safe_load((USER_DIR / "config" / f"{task.name}.yaml").read_text(encoding="utf-8"))["task"]
    defaults = {
        f.name: getattr(config, f.name) for f in fields(SupernetTaskConfig) if f.name in written and f.name != "_name"
    }
    assert {name: written[name] for name in defaults} == defaults | {"search_space": "???"}  # in Hydra: needed
    assert defaults["subnet_sampling"] == "random" and not defaults["cost_strata"]


@pytest.mark.parametrize(("task", "config"), TASKS)
def test_the_table_knows_every_option(task, config):
    """Other options are those of other parts of the configuration, from which the task's take their values."""
    own = {f.name for f in fields(config) if f.name != "_name" and not str(f.default).startswith("${")}
    table = task.option_table
    assert set(table.acts) == own
    assert set(table.needs) <= own and {needed for _, needed, _ in table.needs.values()} <= own
    assert task is not TranslationMosTask or set(VALUES) == own


@pytest.mark.parametrize(("task", "config"), TASKS)
def test_no_option_is_a_components_too(task, config):
    """fairseq would set both by one flag, without a word."""
    own = {f.name for f in fields(SupernetTaskConfig) if f.name != "_name" and not str(f.default).startswith("${")}
    for part in COMPONENTS:
        for name in REGISTRIES[part]["registry"]:
            assert not own & set(component_fields(part, name)), (part, name)
    assert own <= {f.name for f in fields(config)}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_acts_or_is_refused(outcome, command):
    assert not was_refused(outcome(command))
    for option, value in VALUES.items():
        if value is None:
            continue
        only_in, needed, allowed = NEEDS.get(option, (command, None, ()))
        depends = needed is not None and only_in in (None, command) and command in ACTS[option]
        needs = {needed: allowed[0]} if depends else {}
        if "controller" in needs.values():
            needs["controller_budget"] = "flops<=80%"
        message = outcome(command, **needs | {option: value})
        assert was_refused(message) == (command not in ACTS[option]), (option, message)
        if command not in ACTS[option]:
            assert message.startswith(f"{option} is {value}: ") and f"in fairseq-{command}, only in fairseq-" in message


@pytest.mark.slow
@pytest.mark.parametrize("option", NEEDS)
def test_an_option_that_needs_another(outcome, option):
    for command in ACTS[option]:
        only_in, needed, allowed = NEEDS[option]
        if only_in in (None, command):
            others = {"num_random_subnets": "largest", "cost_strata": "smallest", "smallest_interval": "random"}
            others |= {"largest_until": "alternate"}
            others |= {"subnet": "sandwich", "local_average": 0, "local_moments": 0}
            other = others.get(option, "random" if "controller" in option else False)
            message = outcome(command, **{option: VALUES[option], needed: other})
            assert was_refused(message) and message.startswith(f"{option} is {VALUES[option]}: ")
            values = "1 and more" if needed == "local_updates" else ", ".join(map(str, allowed))
            assert f"{needed} {other}, only with {values}" in message


@pytest.mark.slow
def test_a_default_that_is_typed_is_refused_too(typed):
    assert was_refused(typed("generate", "--valid-subnets", "largest,smallest"))
    assert was_refused(typed("interactive", "--valid-subnets=largest,smallest"))
    assert was_refused(typed("train", "--subnet", "smallest"))
    assert not was_refused(typed("generate"))


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--num-experts 3", "--mos-linears=all", "--router-layers=3", "--router-dropout 0.5"])
def test_plain_weight_sharing_has_no_experts_to_set(typed, words):
    option, value = words.removeprefix("--").replace("-", "_").replace("=", " ").split()
    message = typed("train", "--mos-routing", "none", *words.split())
    assert message == f"{option} is {value}: it has no effect with mos_routing none, only with layer, neuron, rank"


@pytest.mark.slow
def test_scripts_may_change_the_routing_alone(typed):
    assert not was_refused(typed("train", "--mos-routing", "none", "--num-experts", "2", "--router-layers", "2"))
    assert not was_refused(typed("train", "--mos-routing", "layer", "--num-experts", "3"))


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--eval-bleu"], ["--valid-subnets", "largest,smallest"]])
def test_a_training_that_never_validates_measures_nothing(typed, words):
    name = words[0].removeprefix("--").replace("-", "_")
    assert typed("train", *words).startswith("Dataset not found")
    message = typed("train", *words, "--disable-validation")
    assert message.startswith(f"{name} is ") and message.endswith("it has no effect with --disable-validation")
    assert typed("train", "--disable-validation").startswith("Dataset not found")


def test_validation_measures_one_or_several(typed):
    message = typed("validate", "--subnet", "smallest", "--valid-subnets", "largest")
    assert message == (
        "subnet is smallest and valid_subnets is largest: both say what fairseq-validate measures, give one of them"
    )


@pytest.mark.slow
def test_search_space_is_compared_with_the_checkpoints(outcome, tmp_path):
    (tmp_path / "other.yaml").write_text((GOLDEN / "space.yaml").read_text().replace("[11, 7]", "[11, 6]"))
    assert not was_refused(outcome("validate", search_space=str(GOLDEN / "space.yaml")))
    message = outcome("validate", search_space=str(tmp_path / "other.yaml"))
    assert "encoder_ffn_embed_dim: [11, 7] vs [11, 6]" in message


@pytest.fixture
def recorded(tmp_path) -> Path:
    """A checkpoint whose training was given many options, and a file that is gone."""
    state = torch.load(GOLDEN / "supernet.pt", weights_only=False)
    options = {"num_random_subnets": 3, "subnet_sampling": "fixed", "subnet": "gone.yaml", "upsample_primary": 2}
    for name, value in (options | {"valid_subnets": "smallest", "load_alignments": True}).items():
        state["cfg"]["task"][name] = value
    torch.save(state, tmp_path / "recorded.pt")
    return tmp_path / "recorded.pt"


@pytest.mark.slow
def test_what_the_checkpoint_records_is_not_refused(typed, recorded, caplog):
    assert not was_refused(typed("validate", path=recorded))
    assert "'gone.yaml': no such file" in caplog.text and "the largest subnet is active" in caplog.text
    assert "'gone.yaml': no such file" in typed("validate", "--subnet", "gone.yaml", path=recorded)


def test_a_program_may_give_anything(recorded):
    """No command is running: hub.load, load_model_ensemble_and_task, mos-search."""
    given = {"data": str(GOLDEN), "source_lang": "xx", "target_lang": "yy", "subnet": "smallest"}
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(recorded)], arg_overrides=given)
    assert task.command is None and model.active_subnet == model.search_space.smallest()


# --- which command it is ---


@pytest.mark.slow
def test_command_under_python_m(typed):
    """torchrun -m and python -m: the module is called __main__."""
    main = lambda: runpy.run_module("fairseq_cli.generate", run_name="__main__")  # noqa: E731
    with pytest.warns(RuntimeWarning, match="fairseq_cli.generate"):
        message = typed("generate", "--valid-subnets", "smallest", main=main)
    assert was_refused(message) and "fairseq-generate" in message


def test_command_called_by_a_program(monkeypatch):
    """fairseq-hydra-train and processes that were started call ``main``; the command line is not fairseq's own then."""
    seen = []
    train = importlib.import_module("fairseq_cli.train")
    monkeypatch.setattr(train.utils, "import_user_module", lambda _: seen.append(calling_command()))
    monkeypatch.setattr(train, "add_defaults", lambda cfg: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["program", "--valid-subnets", "x"])
    with pytest.raises(ZeroDivisionError):
        train.main(type("Config", (), {"common": None}))
    assert seen == [Command("train")] and not seen[0].is_given("valid_subnets")
    assert calling_command() is None


@pytest.mark.parametrize("command", ["cost", "diagnose", "export", "finetune", "gap", "search"])
def test_our_own_commands_take_none_of_them(command, monkeypatch, capsys):
    main = importlib.import_module(f"mos_fairseq.cli.{command}").main
    for option in ("--valid-subnets", "--num-random-subnets", "--eval-bleu-args"):
        monkeypatch.setattr(sys, "argv", [f"mos-{command}", option, "x"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
