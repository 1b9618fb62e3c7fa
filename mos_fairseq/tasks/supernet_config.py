"""Options of the tasks for supernets, whatever the family."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II

from mos_fairseq.distributed import AVERAGES, MOMENTS
from mos_fairseq.tasks.subnet_sampling import SAMPLINGS


@dataclass
class SupernetTaskConfig(FairseqDataclass):
    """Which subnets train, validate and generate."""

    search_space: Optional[str] = field(
        default=None,
        metadata={"help": "preset name or YAML file; needed for training, read from the checkpoint otherwise"},
    )
    subnet_sampling: ChoiceEnum(list(SAMPLINGS)) = field(
        default="random",
        metadata={
            "help": "subnets trained in each update: random (--num-random-subnets of them), sandwich (largest, random "
            "ones, smallest; gradients averaged), alternate (the largest in one update, random ones in the next), "
            "decay (the largest, and more and more often random ones instead; see --largest-until), "
            "controller (as sandwich, but its draws learn what is best within --controller-budget), largest, smallest, "
            "or the fixed one of --subnet"
        },
    )
    num_random_subnets: int = field(
        default=1,
        metadata={
            "help": "random subnets in an update that draws some, of random, sandwich, alternate, decay and controller"
        },
    )
    cost_strata: int = field(
        default=0,
        metadata={
            "help": "random subnets by cost: each of N equal parts of the range of FLOPs gets the same share of them "
            "(default 0: every size is drawn alone, and costs gather in the middle)"
        },
    )
    smallest_interval: int = field(
        default=1, metadata={"help": "sandwich and controller train the smallest subnet in every Nth update only"}
    )
    largest_until: int = field(
        default=0,
        metadata={
            "help": "decay; the update in which the largest subnet's share of the updates has fallen from all to none"
        },
    )
    controller_budget: Optional[str] = field(
        default=None,
        metadata={
            "help": "controller; what its subnets keep: KEY<=N,... as of mos-search --constraint, in parameters or "
            "FLOPs, or in parts of the largest subnet's, as in 'flops<=60%%'"
        },
    )
    controller_from: int = field(
        default=0, metadata={"help": "controller; updates before it begins to learn, in which it draws as sandwich"}
    )
    controller_interval: int = field(default=10, metadata={"help": "controller; learns before every Nth update"})
    controller_samples: int = field(
        default=2, metadata={"help": "controller; subnets that it compares, by a forward pass each, to learn"}
    )
    controller_uniform: float = field(
        default=0.2, metadata={"help": "controller; share of its draws that go to any subnet, as sandwich's"}
    )
    controller_subset: Optional[str] = field(
        default=None, metadata={"help": "controller; set on whose batches it compares (default: the first to validate)"}
    )
    elastic_from: Optional[str] = field(
        default=None,
        metadata={
            "help": "progressive shrinking: KEY:UPDATES,... keeps a dimension at its largest for that "
            "many updates; KEY:UPDATES:UPDATES... adds one choice at a time (default: all elastic from the start)"
        },
    )
    subnets_per_rank: bool = field(
        default=False,
        metadata={"help": "data parallel processes train different random subnets in the same update"},
    )
    local_updates: int = field(
        default=0,
        metadata={
            "help": "data parallel processes train on their own, and average their parameters after every Nth update, "
            "and before they validate or save (default 0: they average gradients in every update)"
        },
    )
    local_average: ChoiceEnum(list(AVERAGES)) = field(
        default="holders",
        metadata={
            "help": "local_updates; whose copies of a tensor count: of the processes that touched it in this round, by "
            "their tokens, or of all"
        },
    )
    local_moments: ChoiceEnum(list(MOMENTS)) = field(
        default="average",
        metadata={"help": "local_updates; the optimizer's moments after a round: averaged alike, kept, or forgotten"},
    )
    shard_data: bool = field(
        default=False,
        metadata={
            "help": "data parallel processes train on different data: the Nth on the Nth of the folders in DATA, "
            "separated by colons, in every epoch; dictionaries and other sets are the first folder's"
        },
    )
    subnet: Optional[str] = field(
        default=None,
        metadata={
            "help": "subnet that generates (default: largest), that fairseq-validate measures (default: "
            "--valid-subnets) or, with --subnet-sampling fixed, trains: largest, smallest, random:SEED, "
            "controller (its answer), or a YAML file"
        },
    )
    valid_subnets: str = field(
        default="largest,smallest", metadata={"help": "subnets to validate, comma-separated, as for --subnet"}
    )
    seed: int = II("common.seed")
    log_interval: int = II("common.log_interval")
    max_tokens_valid: Optional[int] = II("dataset.max_tokens_valid")
    batch_size_valid: Optional[int] = II("dataset.batch_size_valid")
    ddp_backend: str = II("distributed_training.ddp_backend")
    train_subset: str = II("dataset.train_subset")
    valid_subset: str = II("dataset.valid_subset")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    maximize_best_checkpoint_metric: bool = II("checkpoint.maximize_best_checkpoint_metric")
    store_ema: bool = II("ema.store_ema")
    update_freq: list[int] = II("optimization.update_freq")
    fix_batches_to_gpus: bool = II("distributed_training.fix_batches_to_gpus")
