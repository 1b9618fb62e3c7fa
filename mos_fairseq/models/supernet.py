"""Supernets of all families: fairseq models with a search space, of which one subnet is active at a time."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from mos_fairseq.distributed import LocalDataParallel, LocalRounds, SupernetDataParallel
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.models.dropout_scaling import dropout_scales
from mos_fairseq.models.identity import check_identity, make_identity
from mos_fairseq.models.static_copy import copy_active
from mos_fairseq.models.static_twin import StaticTwin
from mos_fairseq.models.trained_parts import train_experts
from mos_fairseq.models.transformer_config import check_rates
from mos_fairseq.models.transformer_stack import LayerKit
from mos_fairseq.modules import (
    ElasticLayerMaps,
    ElasticLayerNorm,
    ElasticLinear,
    ElasticTransformerLayer,
    LowRankExperts,
    MixtureOptions,
)
from mos_fairseq.search_space import Family, SearchSpace, Subnet, arch_encoding

logger = logging.getLogger(__name__)

if TYPE_CHECKING:  # the class that the mixin precedes
    from fairseq.models import BaseFairseqModel as _Base
else:
    _Base = object


def _mixture_options(cfg: Any, space: SearchSpace) -> MixtureOptions:
    at_least(1, **{name: getattr(cfg, name) for name in ("num_experts", "router_hidden_dim", "router_layers")})
    _check_low_rank(cfg)
    check_rates(cfg, "dropout", "attention_dropout", "activation_dropout", "router_dropout")
    return MixtureOptions(
        routing=str(cfg.mos_routing),
        num_experts=cfg.num_experts,
        expert_rank=cfg.expert_rank,
        linears=str(cfg.mos_linears),
        lowest_encoding=tuple(arch_encoding(space.smallest(), space, str(cfg.arch_encoding))),
        router_hidden_dim=cfg.router_hidden_dim,
        router_layers=cfg.router_layers,
        router_dropout=cfg.router_dropout,
    )


def _check_low_rank(cfg: Any) -> None:
    """Raise InputError where an option needs experts of low rank, or these need another."""
    at_least(0, expert_rank=cfg.expert_rank)
    if cfg.expert_rank and str(cfg.mos_routing) == "none":
        raise InputError(f"expert_rank is {cfg.expert_rank}: mos_routing none has no experts")
    if not cfg.expert_rank and str(cfg.mos_routing) == "rank":
        raise InputError("mos_routing is rank: it mixes components of low rank, which need --expert-rank 1 or more")
    if not cfg.expert_rank and cfg.freeze_shared:
        raise InputError("freeze_shared is True: nothing would train without --expert-rank 1 or more")


def _linear(in_features: int, out_features: int) -> ElasticLinear:
    linear = ElasticLinear(in_features, out_features, gain=None)
    bound = 1 / math.sqrt(in_features)
    nn.init.uniform_(linear.bias, -bound, bound)
    return linear


def _maps(largest: Subnet, stack: str) -> ElasticLayerMaps:
    widths = [layer.width for layer in largest.layers(stack)]
    declared = largest.family.stack(stack)
    around_each = declared.inside(largest.values) is declared.bottleneck
    return ElasticLayerMaps(largest.width(stack), widths, around_each)


class Supernet(_Base):
    """Mixin before a model of one family (``TransformerModel``, ``TransformerLanguageModel``).

    One subnet is active at a time, in a fresh model the largest. The buffer ``identity`` holds search space and
    routing, so that weights are never loaded into a supernet of another space (:mod:`mos_fairseq.models.identity`).

    Attributes:
        arch, task: fairseq's names of the model, and of the task that trains it.
        other_tasks: further tasks that train it, such as those that fine-tune it.
        family: family of its search spaces.
        twin: class of its static twins.
        search_space, active_subnet: the search space, and the active subnet.
        local_rounds: how processes average in data-parallel training; None: gradients, in every update.
    """

    arch: str
    task: str
    other_tasks: tuple[str, ...] = ()
    family: Family
    twin: type[StaticTwin]
    local_rounds: LocalRounds | None = None

    def __init__(self, cfg: Any, stacks: Sequence[nn.Module], space: SearchSpace) -> None:
        super().__init__(cfg, *stacks)
        self.search_space = space
        self.register_buffer("identity", make_identity(space, cfg))
        for module in self.modules():
            if isinstance(module, (ElasticLinear, LowRankExperts)):
                for parameter in module.parameters(recurse=False):
                    parameter.stacked_experts = True  # read by scaled_adam: sizes are each expert's
        self.set_active_subnet(space.largest())

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> Self:
        """Build for fairseq: the search space is the task's.

        With ``freeze_shared``, only experts of low rank and routers get gradients.

        Raises:
            InputError: the search space is missing, invalid or of another family, or an option is invalid.
        """
        if not cfg.search_space:
            raise InputError(f"{cls.arch} needs a search space: use --task {cls.task} --search-space SPACE")
        space = SearchSpace.from_spec(cfg.search_space)
        model = cls.from_search_space(cfg, space, *cls.dictionaries_of(task))
        if cfg.freeze_shared:
            train_experts(model)
        return model

    @classmethod
    @torch.inference_mode(False)  # independent of the caller's mode: training may follow
    def from_search_space(cls, cfg: Any, space: SearchSpace, *dictionaries: Any) -> Self:
        """Build from a search space and a dictionary for each stack.

        Raises:
            InputError: the space has another family, or an option is invalid.
        """
        if space.family != cls.family:
            raise InputError(
                f"search_space is of family {space.family.name}: --arch {cls.arch} takes {cls.family.name}"
            )
        layer = partial(ElasticTransformerLayer, mixture=_mixture_options(cfg, space))
        kit = LayerKit(layer, ElasticLayerNorm, _linear, _maps)
        return cls(cfg, cls.build_stacks(cfg, space.largest(), dictionaries, kit), space)

    # --- choosing a subnet -----------------------------------------------------------------------------------------

    def set_active_subnet(self, subnet: Subnet) -> None:
        """Activate ``subnet``.

        Raises:
            InputError: the subnet is not in the search space.
        """
        self.search_space.check(subnet)
        self.active_subnet = subnet
        values = arch_encoding(subnet, self.search_space, str(self.cfg.arch_encoding))
        with torch.inference_mode(False):  # independent of the caller's mode: training may follow
            encoding = torch.tensor(values, dtype=torch.float32, device="cpu")
            if self.identity.is_cuda:  # from pageable memory, the host would wait for the device
                encoding = encoding.pin_memory()
            encoding = encoding.to(self.identity.device, non_blocking=True)
        for stack in self.stacks():
            self._set_stack(stack, subnet, encoding)

    def stacks(self) -> list[nn.Module]:
        """Return its stacks, in the family's order."""
        return [getattr(self, stack.name) for stack in self.family.stacks]

    def _set_stack(self, stack: nn.Module, subnet: Subnet, encoding: Tensor) -> None:
        """Set sizes, depth, dropout and the routers' input of one stack."""
        name = stack.stack.name
        sizes = subnet.layers(name)
        scale, of_layers = dropout_scales(str(self.cfg.dropout_scaling), subnet, self.search_space, name)
        for layer, active, (layer_scale, activation_scale) in zip(stack.layers, sizes, of_layers, strict=False):
            layer.set_active_sizes(active)
            layer.set_arch(encoding, layer_scale)
            layer.activation_dropout_module.p = self.cfg.activation_dropout * activation_scale
        for layer in stack.layers[len(sizes) :]:
            layer.forget()  # inactive, so no forward notices an update, but momentum may move it
        stack.set_active_sizes(subnet)
        stack.set_outer_sizes(subnet)
        stack.dropout_module.p = self.cfg.dropout * scale

    def describe_active_subnet(self) -> str:
        """Return one line for logs."""
        ends = {self.search_space.smallest(): "smallest: ", self.search_space.largest(): "largest: "}
        return ends.get(self.active_subnet, "") + self.active_subnet.summary()

    def prepare_for_inference_(self, cfg: Any) -> None:
        """Prepare for inference (a hook of fairseq's commands and hub). Warns under a task without ``--subnet``."""
        super().prepare_for_inference_(cfg)
        task = getattr(getattr(cfg, "task", None), "_name", None)
        if task not in (self.task, *self.other_tasks):
            logger.warning(
                "generating with subnet %s; --task %s has --subnet for others and reads every sentence; --task "
                "%s may skip some without --required-batch-size-multiple 1",
                self.describe_active_subnet(),
                self.task,
                task,
            )

    def sample_subnet(self, *seed_parts: object) -> Subnet:
        """Draw a subnet from a seed (as ``SearchSpace.sample_subnet``), make it active and return it."""
        subnet = self.search_space.sample_subnet(*seed_parts)
        self.set_active_subnet(subnet)
        return subnet

    @torch.no_grad()
    def get_active_subnet(self) -> StaticTwin:
        """Return a static twin with copies of the active subnet's merged weights, in eval mode, on the same device and
        in the same dtype. It has the configured dropout rates: only the supernet scales them by width."""
        training = self.training
        stacks, largest = self.stacks(), self.search_space.largest()
        twin = self.twin.from_subnet(
            self._twin_config(),
            self.active_subnet,
            *(stack.dictionary for stack in stacks),
            position_dims=[largest.width(stack.stack.name) for stack in stacks],
        )
        twin.to(stacks[0].embed_tokens.weight)
        self.eval()
        try:
            for stack in stacks:
                copy_active(stack, getattr(twin, stack.stack.name))
        finally:
            self.train(training)
        return twin.eval()

    def _twin_config(self) -> Any:
        """Return the configuration of the active subnet's static twin."""
        shared = {name: getattr(self.cfg, name) for name in self.twin.shared_options()}
        return self.twin.config(**shared, subnet=self.active_subnet.key)

    def data_parallel(self, process_group: Any, bucket_mb: float = 25) -> SupernetDataParallel:
        """Wrap the model for data-parallel training; fairseq's ``pytorch_ddp`` and ``legacy_ddp`` use this."""
        if self.local_rounds is not None:
            return LocalDataParallel(self, process_group, self.local_rounds, bucket_mb)
        return SupernetDataParallel(self, process_group, bucket_mb)

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict, strict=True, model_cfg=None, args=None):
        """Load as fairseq does; the weights may come from a checkpoint, an average of several, or an EMA.

        Raises:
            InputError: the weights have another search space, routing, vocabulary or number of positions; the message
                has the differences. Without ``strict``, weights that name no search space are accepted unchecked.
        """
        stored = state_dict.get("identity")
        if stored is not None:
            check_identity(stored, self.search_space, self.cfg)
            state_dict = copy.copy(state_dict)
            state_dict["identity"] = self.identity
        elif strict:
            raise InputError(
                f"these weights are no {self.arch} supernet: they name no search space; mos-warm-start makes a "
                "supernet of fairseq's transformer"
            )
        for stack in self.stacks():
            name, words = stack.stack.name, stack.embed_tokens.weight
            table = state_dict.get(f"{name}.embed_tokens.weight")
            if table is not None and len(table) != len(words):
                raise InputError(
                    f"the checkpoint's {name} has {len(table)} words, this run's dictionary has {len(words)}: "
                    "use the data folder (its dict.*.txt) of the training"
                )
            learnt, table = stack.embed_positions, state_dict.get(f"{name}.embed_positions.weight")
            if table is not None and hasattr(learnt, "weight") and len(table) != len(learnt.weight):
                known, mine = (len(rows) - 1 - stack.padding_idx for rows in (table, learnt.weight))
                raise InputError(
                    f"the checkpoint's {name} has {known} positions, this run's has {mine}: give the training's number "
                    "of positions (options such as --max-positions, --max-source-positions, --tokens-per-sample)"
                )
        return super().load_state_dict(state_dict, strict, model_cfg, args)
