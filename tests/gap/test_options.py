"""Options of standalone training: those that a supernet's checkpoint records."""

import pytest
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

import mos_fairseq  # noqa: F401
from mos_fairseq.errors import InputError
from mos_fairseq.gap.options import effective, overridden, training_options

SUPERNET = """data --task translation_mos --search-space tiny --arch transformer_mos --share-all-embeddings
    --mos-routing neuron --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.2 --dropout 0.3
    --attention-dropout 0.1 --decoder-normalize-before --optimizer adam --adam-eps 1e-7 --weight-decay 0.01
    --lr 0.002,0.001 --lr-scheduler inverse_sqrt --warmup-updates 44 --warmup-init-lr 1e-7 --clip-norm 2.5
    --update-freq 3 --max-tokens 345 --seed 9 --amp --source-lang xx --max-source-positions 77 --left-pad-source
    --validate-interval 3 --save-dir elsewhere --max-epoch 6 --num-random-subnets 2"""


def configuration(words: list[str]) -> dict:
    args = fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), words)
    return OmegaConf.to_container(convert_namespace_to_omegaconf(args), resolve=True, enum_to_str=True)


def standalone(cfg: dict, more: list[str]) -> dict:
    model = ["data", "--task", "translation", "--arch", "transformer_subnet", "--subnet", "{}"]
    return configuration([*model, *overridden(training_options(cfg), more)])


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
    for name in found["model"].keys() - {"_name", "subnet"}:
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
    cfg = configuration(SUPERNET.split())
    more = ["--lr-scheduler", "fixed", "--dropout", "0.0", "--lr=0.5"]
    found = standalone({**cfg, "lr_scheduler": {"_name": "inverse_sqrt"}}, more)
    assert found["lr_scheduler"]["_name"] == "fixed" and found["model"]["dropout"] == 0.0
    assert found["optimization"]["lr"] == [0.5]


def test_unknown_optimizer():
    cfg = configuration(SUPERNET.split())
    with pytest.raises(InputError, match="optimizer of the checkpoint is sophia: fairseq here knows .*adam"):
        training_options({**cfg, "optimizer": {"_name": "sophia"}})


def test_what_changes_the_outcome():
    words = "--lr 0.1 --amp --num-workers 3 --adam-betas (0.9,0.98) --lr=0.2".split()
    assert effective(words) == {"--lr": ["0.2"], "--amp": [], "--adam-betas": ["(0.9,0.98)"]}
    assert effective(["--amp", "--lr", "0.2"]) == effective(["--lr", "0.1", "--lr", "0.2", "--amp"])
