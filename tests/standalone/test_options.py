"""Options of standalone training that a supernet's checkpoint records."""

import argparse
import ast
import copy
import functools
import itertools
from dataclasses import fields
from enum import Enum
from typing import get_args

import pytest
import torch
from fairseq import options as fairseq_options
from fairseq.dataclass.configs import CheckpointConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim import build_optimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler
from fairseq.registry import REGISTRIES
from omegaconf import OmegaConf

import mos_fairseq  # noqa: F401
from mos_fairseq.errors import InputError
from mos_fairseq.standalone.configuration import COMPONENTS, LENGTH, NEUTRAL, component_fields, fields_of
from mos_fairseq.standalone.configuration import SECTIONS as COMMON_SECTIONS
from mos_fairseq.standalone.finetuning import short_recipe
from mos_fairseq.standalone.kinds import kind_of
from mos_fairseq.standalone.options import effective, overridden, training_options

pytestmark = pytest.mark.slow

SUPERNET = """data --task translation_mos --search-space tiny --arch transformer_mos --share-all-embeddings
    --mos-routing neuron --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.2 --dropout 0.3
    --attention-dropout 0.1 --decoder-normalize-before --optimizer adam --adam-eps 1e-7 --weight-decay 0.01
    --lr 0.002,0.001 --lr-scheduler inverse_sqrt --warmup-updates 44 --warmup-init-lr 1e-7 --clip-norm 2.5
    --update-freq 3 --max-tokens 345 --seed 9 --amp --source-lang xx --max-source-positions 77 --left-pad-source
    --validate-interval 3 --save-dir elsewhere --max-epoch 6 --num-random-subnets 2"""


WORDS = SUPERNET.split()
PLAIN = """data --task translation_mos --search-space tiny --arch transformer_mos --max-tokens 345
    --criterion label_smoothed_cross_entropy_mos --optimizer sgd""".split()
OPTIMIZERS = sorted(REGISTRIES["optimizer"]["registry"].keys() - {"composite"})  # its groups have no options
SCHEDULES = sorted(REGISTRIES["lr_scheduler"]["registry"].keys() - {"reduce_lr_on_plateau"})


def configuration(words: list[str]) -> dict:
    return _configuration(tuple(words))


@functools.cache
def _configuration(words: tuple[str, ...]) -> dict:
    args = namespace(list(words))
    return OmegaConf.to_container(convert_namespace_to_omegaconf(args), resolve=True, enum_to_str=True)


def namespace(words: list[str]) -> argparse.Namespace:
    return fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), words)


SECTIONS = COMMON_SECTIONS | kind_of({"model": {"_name": "transformer_mos"}}).sections
STANDALONE = ["data", "--task", "translation", "--arch", "transformer_subnet", "--subnet", "{}"]


def standalone(cfg: dict, more: list[str]) -> dict:
    return configuration([*STANDALONE, *overridden(training_options(cfg, more), more)])


def values(section: object) -> dict:
    return section if isinstance(section, dict) else vars(section)


def another(field) -> object:
    """A value of a dataclass's field that is not its default and that training could have."""
    kind = next((kind for kind in get_args(field.type) if kind is not type(None)), field.type)
    default = field.default_factory() if callable(field.default_factory) else field.default
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(member.value for member in kind if member.value != str(default))
    if isinstance(default, tuple) or field.name == "adam_betas":
        return [0.875, 0.9375]
    if isinstance(default, list) or "List" in str(field.type) or "list" in str(field.type):
        return [0.03125, 0.25] if "float" in str(field.type) else [5, 3]
    number = default if isinstance(default, (int, float)) else 0
    choices = {bool: not default, int: int(number) + 3, float: number * 1.5 + 1e-7, str: "-x y"}
    return next(choices[name] for name in choices if name.__name__ in str(kind))


def change(cfg: dict, section: str, names: set[str]) -> None:
    """Other values for the fields, and for those of all sections that follow them by interpolation."""
    for field in fields(SECTIONS[section]):
        if field.name in names and not str(field.default).startswith("${"):
            cfg[section][field.name] = another(field)
    components = {part: REGISTRIES[part]["dataclass_registry"][cfg[part]["_name"]] for part in COMPONENTS}
    for part, config in (SECTIONS | components).items():
        for field in fields(config):
            if str(field.default).startswith(f"${{{section}."):
                cfg[part][field.name] = cfg[section][str(field.default)[2:-1].partition(".")[2]]


def literal(value: object) -> object:
    """Return a parsed value; for a string that fairseq evaluates later, the evaluated one."""
    try:
        value = ast.literal_eval(value)
    except ValueError:
        return value
    return list(value) if isinstance(value, tuple) else value


def check_round_trip(cfg: dict, section: str, names: set[str], found: dict) -> None:
    mine, theirs = values(cfg[section]), values(found[section])
    assert {name: theirs[name] for name in names} == {name: mine[name] for name in names}


# --- every field of fairseq's configuration ---

# fields that change the sentences of an update, or how many of them are one, tested below
OF_SEVERAL = {"update_freq", "use_bmuf", "fix_batches_to_gpus", "grouped_shuffling"}
EXCLUSIVE = {"fp16", "memory_efficient_fp16"}  # fairseq refuses them with bf16 or on a TPU


@pytest.mark.parametrize("names", [None, EXCLUSIVE], ids=["most", "half"])
def test_every_field_is_passed_on(names):
    cfg, chosen = copy.deepcopy(configuration(WORDS)), {}
    for section in SECTIONS:
        chosen[section] = set(fields_of(SECTIONS[section], section)) - OF_SEVERAL
        chosen[section] = chosen[section] & names if names else chosen[section] - EXCLUSIVE
        change(cfg, section, chosen[section])
    found = standalone(cfg, [])
    assert all(chosen.values()) or names
    for section in SECTIONS:
        check_round_trip(cfg, section, chosen[section], found)


def test_every_field_is_known_to_matter_or_not():
    """Neutral fields exist, and no relevant field has the same name in another section."""
    sections = SECTIONS | {"checkpoint": CheckpointConfig}
    for section, neutral in NEUTRAL.items():
        assert set(neutral) <= {field.name for field in fields(sections[section])}, section
    assert set(LENGTH) <= {field.name for field in fields(SECTIONS["optimization"])}
    neutral = {name for names in NEUTRAL.values() for name in names}
    assert not neutral & {name for section in SECTIONS for name in fields_of(SECTIONS[section], section)}


def test_masked_language_models_train_as_their_supernet():
    words = """data --task masked_lm_mos --search-space bert_tiny --arch roberta_mos --criterion distillation_mos
        --mask-prob 0.25 --leave-unmasked-prob 0.2 --random-token-prob 0.05 --sample-break-mode eos
        --tokens-per-sample 77
        --max-positions 80 --dropout 0.3 --layer-norm-eps 1e-12 --encoder-normalize-before --untie-weights-roberta
        --optimizer adam --lr 0.002 --max-tokens 345 --seed 9 --num-random-subnets 2"""
    cfg = configuration(words.split())
    kind = kind_of(cfg)
    assert kind.command == ("--task", "masked_lm", "--arch", "roberta_subnet")
    found = configuration(["data", *kind.command, "--subnet", "{}", *overridden(training_options(cfg), [])])
    assert found["criterion"]["_name"] == "masked_lm"
    for section, config in (COMMON_SECTIONS | kind.sections).items():
        check_round_trip(cfg, section, set(fields_of(config, section)), found)


def other_options(part: str, name: str) -> list[str]:
    """A component and all its options, each with a value that is not its default."""
    parser = argparse.ArgumentParser(add_help=False)
    REGISTRIES[part]["registry"][name].add_args(parser)
    special = {"adam_betas": ["(0.875, 0.5)"], "phase_ratio": ["0.25,0.25,0.5"]}
    words = [f"--{part.replace('_', '-')}", name]
    for action in parser._actions:
        if action.dest != "lr":
            words += [action.option_strings[0], *([] if action.nargs == 0 else special.get(action.dest, ["7"]))]
    return words


# as many of one as of the other; each comes at least once
PAIRS = list(zip(itertools.cycle(OPTIMIZERS), SCHEDULES, strict=False))


@pytest.mark.parametrize(("optimizer", "schedule"), PAIRS)
def test_every_component_is_passed_on(optimizer, schedule):
    assert len(SCHEDULES) >= len(OPTIMIZERS)
    words = [*other_options("optimizer", optimizer), *other_options("lr_scheduler", schedule)]
    mine = vars(namespace([*PLAIN, *words]))
    theirs = vars(namespace([*STANDALONE, *overridden(training_options(configuration([*PLAIN, *words])), [])]))
    own = {"optimizer", *component_fields("optimizer", optimizer)}
    own |= {"lr_scheduler", *component_fields("lr_scheduler", schedule)}
    if schedule == "tri_stage":  # its steps are stated, see below
        own -= {"phase_ratio", "warmup_steps", "hold_steps", "decay_steps"}
    own &= mine.keys()
    assert {name: literal(theirs[name]) for name in own} == {name: literal(mine[name]) for name in own}


# --- schedules that follow the length of the supernet's training ---


def rates(name: str, section: dict, updates: list[int]) -> list[float]:
    """Learning rates by a schedule of fairseq's after so many updates."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(configuration(PLAIN)["optimizer"], [parameter])
    schedule = build_lr_scheduler(OmegaConf.create(section), optimizer)
    return [schedule.step_update(update) for update in updates]


FOLLOWING = {
    "polynomial_decay": ["--total-num-update", "500"],
    "cosine": ["--warmup-updates", "20", "--warmup-init-lr", "0.01"],
    "tri_stage": ["--phase-ratio", "0.25,0.25,0.5"],
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_a_schedule_does_not_follow_the_standalone_models_updates(name):
    """The supernet's rate depends on its --max-update, which a standalone model may not have."""
    words = ["--lr-scheduler", name, *FOLLOWING[name], "--max-update", "500", "--lr", "0.5"]
    cfg = configuration([*PLAIN, *words])
    found = configuration([*STANDALONE, *overridden(training_options(cfg), []), "--max-update", "90"])
    updates = [1, 19, 60, 124, 300, 480]
    assert rates(name, found["lr_scheduler"], updates) == rates(name, cfg["lr_scheduler"], updates)


def test_a_short_training_falls_linearly_whatever_its_supernet_did():
    cfg = copy.deepcopy(configuration([*PLAIN, "--lr-scheduler", "polynomial_decay", *FOLLOWING["polynomial_decay"]]))
    cfg["lr_scheduler"] |= {"power": 2.0, "force_anneal": 1}
    cfg["optimization"]["stop_min_lr"] = 0.1
    assert not short_recipe(cfg, "data", 1.0, 100).options.keys() & {"--power", "--force-anneal", "--stop-min-lr"}
    given = ["--lr-scheduler", "polynomial_decay", "--total-num-update", "100"]  # it keeps the recorded options
    assert short_recipe(cfg, "data", 1.0, 100, given).options["--power"] == "2.0"


# --- several processes, and settings that cannot be passed on ---


def test_batches_of_several_processes_become_those_of_one():
    cfg = configuration([*PLAIN, "--update-freq", "3,2", "--distributed-world-size", "4"])
    assert standalone(cfg, [])["optimization"]["update_freq"] == [12, 8]
    assert "--update-freq" not in training_options(cfg, ["--update-freq=5"])
    one = configuration([*PLAIN, "--update-freq", "8"])
    eight = configuration([*PLAIN, "--distributed-world-size", "8"])
    assert training_options(one) == training_options(eight) != training_options(configuration(PLAIN))


def test_local_rounds_are_refused():
    cfg = copy.deepcopy(configuration(PLAIN))
    cfg["task"]["local_updates"], cfg["distributed_training"]["distributed_world_size"] = 5, 4
    with pytest.raises(InputError, match=r"^task\.local_updates of the checkpoint is 5: .* give --update-freq after"):
        training_options(cfg)
    assert "--update-freq" not in training_options(cfg, ["--update-freq", "2"])


@pytest.mark.parametrize(
    ("section", "field", "value", "size"),
    [
        ("optimization", "use_bmuf", True, 1),
        ("dataset", "grouped_shuffling", True, 2),
        ("distributed_training", "fix_batches_to_gpus", True, 2),
        # what only Hydra can say
        ("dataset", "required_batch_size_multiple", None, 1),
        ("optimizer", "lr", [0.125], 1),
        ("task", "max_source_positions", 33, 1),
    ],
)
def test_what_cannot_be_passed_on_is_refused(section, field, value, size):
    cfg = copy.deepcopy(configuration([*WORDS, "--distributed-world-size", str(size)]))
    cfg[section][field] = value
    with pytest.raises(InputError) as error:
        training_options(cfg)
    message, option = str(error.value), f"--{field.replace('_', '-')}"
    assert f"of the checkpoint is {value}" in message and f"give {option} after --" in message and "\n" not in message
    assert option not in training_options(cfg, [option] if value is True else [option, "5"])


def test_groups_of_optimizers_are_refused():
    cfg = copy.deepcopy(configuration([*PLAIN, "--optimizer", "composite"]))
    cfg["optimizer"]["groups"] = {"default": {"optimizer": {"_name": "adam"}}}
    with pytest.raises(InputError, match="optimizer.groups of the checkpoint is"):
        training_options(cfg)


def test_a_schedule_by_validation_is_refused():
    cfg = configuration([*PLAIN, "--lr-scheduler", "reduce_lr_on_plateau"])
    with pytest.raises(InputError, match="lr_scheduler is reduce_lr_on_plateau, .* give --lr-scheduler after --"):
        training_options(cfg)
    assert standalone(cfg, ["--lr-scheduler", "fixed"])["lr_scheduler"]["_name"] == "fixed"


# --- the whole ---


@pytest.mark.parametrize("betas", [[], ["--adam-betas", "(0.9, 0.98)"]])
def test_standalone_models_train_as_the_supernet(betas):
    cfg = configuration([*SUPERNET.split(), *betas])
    found = standalone(cfg, [])
    for part in ("common", "optimization", "optimizer", "lr_scheduler", "dataset"):
        own = {"optimization": ("max_epoch", "max_update"), "dataset": ("validate_interval",)}.get(part, ())
        for name, value in found[part].items():
            if name not in own and name not in ("user_dir", "no_progress_bar"):
                assert value == cfg[part][name], (part, name)
    for name in found["task"].keys() - {"_name"}:
        assert found["task"][name] == cfg["task"][name], name
    for name in found["model"].keys() - {"_name", "subnet", "trained_parts"}:
        assert found["model"][name] == cfg["model"][name], name
    assert found["criterion"]["_name"] == "label_smoothed_cross_entropy"
    assert found["criterion"]["label_smoothing"] == 0.2
    assert found["optimization"]["max_epoch"] == 0 and found["checkpoint"]["save_dir"] == "checkpoints"


def test_fairseqs_criterion_is_kept():
    words = [word.replace("label_smoothed_cross_entropy_mos", "cross_entropy") for word in SUPERNET.split()]
    index = words.index("--label-smoothing")
    options = training_options(configuration(words[:index] + words[index + 2 :]))
    assert options["--criterion"] == "cross_entropy" and "--label-smoothing" not in options


def test_overrides_win():
    cfg = configuration(WORDS)
    more = ["--lr-scheduler", "fixed", "--dropout", "0.0", "--lr=0.5"]
    found = standalone(cfg, more)  # without --warmup-init-lr, which the other schedule lacks
    assert found["lr_scheduler"]["_name"] == "fixed" and found["model"]["dropout"] == 0.0
    assert found["optimization"]["lr"] == [0.5]


def test_overrides_by_other_names():
    """fairseq's short and alternative names, and a schedule with its own option."""
    cfg = configuration([*PLAIN, "--batch-size", "5", "--source-lang", "xx"])
    more = ["--max-sentences", "7", "-s", "yy", "--lr-scheduler", "polynomial_decay", "--total-num-update=9"]
    assert training_options(cfg, more).keys() & {"--batch-size", "--source-lang", "--lr-scheduler"} == set()
    found = standalone(cfg, more)
    assert (found["dataset"]["batch_size"], found["task"]["source_lang"]) == (7, "yy")
    assert found["lr_scheduler"]["total_num_update"] == 9


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--leaning-rate", "1"], "unrecognized arguments: --leaning-rate 1"),
        (["--lr-scheduler", "polynomial_decay"], "total_num_update"),
        (["--max-tokens", "many"], "argument --max-tokens: invalid .*'many'"),
        (["--fp16", "--tpu"], "Cannot combine --fp16 and --tpu"),
    ],
)
def test_overrides_that_fairseq_does_not_take(more, message):
    with pytest.raises(InputError, match=f"^fairseq-train: .*{message}"):
        training_options(configuration(PLAIN), more)


def test_unknown_optimizer():
    cfg = configuration(SUPERNET.split())
    with pytest.raises(InputError, match="optimizer of the checkpoint is sophia: this fairseq has .*adam"):
        training_options({**cfg, "optimizer": {"_name": "sophia"}})
    with pytest.raises(InputError, match="criterion of the checkpoint is theirs: this fairseq has .*cross_entropy"):
        training_options({**cfg, "criterion": {"_name": "theirs"}})
    with pytest.raises(InputError, match="--lr-scheduler is cosinus: this fairseq has .*cosine"):
        training_options(cfg, ["--lr-scheduler", "cosinus"])


def test_what_changes_the_outcome():
    words = "--lr 0.1 --amp --num-workers 3 --adam-betas (0.9,0.98) --lr=0.2".split()
    assert effective(words) == {"--lr": ["0.2"], "--amp": [], "--adam-betas": ["(0.9,0.98)"]}
    assert effective(["--amp", "--lr", "0.2"]) == effective(["--lr", "0.1", "--lr", "0.2", "--amp"])
