"""Add experts of low rank to a trained supernet of plain weight sharing (after TAS-LoRA, arXiv 2605.07256)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from mos_fairseq.checkpoints import build_supernet
from mos_fairseq.errors import InputError
from mos_fairseq.models import Supernet
from mos_fairseq.search_space import SearchSpace


def low_rank_supernet(state: dict[str, Any], space: SearchSpace, routing: Mapping[str, Any], seed: int = 1) -> Supernet:
    """Build a supernet in eval mode whose subnets are bit-equal to those of the supernet in ``state``: the experts add
    zero at first (see :class:`~mos_fairseq.modules.LowRankExperts`).

    Args:
        state: of the checkpoint, see :func:`~mos_fairseq.checkpoints.read_supernet`.
        space: that of the checkpoint.
        routing: options of the experts and routers, of :class:`~mos_fairseq.mos_options.MosOptions`.
        seed: of routers and factors, which the checkpoint lacks.

    Raises:
        InputError: the checkpoint is of another space or of a supernet with experts, or ``routing`` is none of experts
            of low rank.
    """
    if not routing["expert_rank"]:
        raise InputError(
            "expert_rank is 0: a trained supernet can be given experts of low rank only, --expert-rank 1 or more"
        )
    base = build_supernet(state)
    if difference := base.search_space.difference(space):
        raise InputError(f"search_space is not the checkpoint's (checkpoint against --search-space): {difference}")
    if str(base.cfg.mos_routing) != "none":
        raise InputError(
            f"mos_routing of the checkpoint is {base.cfg.mos_routing}: experts can be added to mos_routing none only"
        )
    cfg = copy.deepcopy(base.cfg)
    for name, value in routing.items():
        setattr(cfg, name, value)
    if hasattr(cfg, "load_checkpoint_heads"):  # it is set when a checkpoint is read
        cfg.load_checkpoint_heads = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dictionaries = [stack.dictionary for stack in base.stacks()]
        model = type(base).from_search_space(cfg, base.search_space, *dictionaries)
    shared = {name: tensor for name, tensor in base.state_dict().items() if name != "identity"}
    model.load_state_dict(model.state_dict() | shared)
    return model.eval()
