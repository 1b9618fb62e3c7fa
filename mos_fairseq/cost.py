"""Count the parameters and FLOPs of a subnet from its sizes alone: exactly, and without building anything.

One multiply-accumulate is two FLOPs, as in HAT (arXiv 2005.14187) and in :mod:`torch.utils.flop_counter`: only matrix
products count, and causal attention counts in full. Experts and routers never count: a subnet is a dense Transformer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.model_options import ModelOptions
from mos_fairseq.search_space import FAMILIES, Stack, Subnet

POSITIONS = tuple(dict.fromkeys(stack.positions for family in FAMILIES.values() for stack in family.stacks))
"""Options that give a number of positions."""

_FIRST_POSITION = 2  # fairseq numbers positions from behind the padding symbol, which is 1


@dataclass(frozen=True)
class CostOptions(ModelOptions):
    """What a model's cost depends on besides the subnet, under fairseq's option names.

    Args:
        src_len, tgt_len: tokens of the one sentence pair whose forward pass is counted (HAT: 30 and 30).
        vocab_size: entries of the only or the source dictionary; None: unknown, and so is the cost of embeddings.
        tgt_vocab_size: entries of the target dictionary, if it is a different one.
        max_source_positions, max_target_positions: of learned position embeddings.
        max_positions: the same, for a model that has only an encoder.

    Raises:
        InputError: a size is not positive, the target dictionary's alone is given, or two dictionaries share all
            embeddings.
    """

    src_len: int = 30
    tgt_len: int = 30
    vocab_size: int | None = None
    tgt_vocab_size: int | None = None
    encoder_learned_pos: bool = False
    decoder_learned_pos: bool = False
    max_source_positions: int = 1024
    max_target_positions: int = 1024
    max_positions: int = 512

    def __post_init__(self) -> None:
        sizes = ("src_len", "tgt_len", "vocab_size", "tgt_vocab_size", *POSITIONS)
        at_least(1, **{name: getattr(self, name) for name in sizes})
        if self.tgt_vocab_size is not None and self.vocab_size is None:
            raise InputError(f"tgt_vocab_size is {self.tgt_vocab_size}: it has no effect without vocab_size")
        if self.share_all_embeddings and self.tgt_vocab_size not in (None, self.vocab_size):
            raise InputError(
                f"tgt_vocab_size={self.tgt_vocab_size} with share_all_embeddings: shared embeddings have one "
                f"dictionary, of vocab_size={self.vocab_size}"
            )

    @classmethod
    def of_model(cls, cfg: Any, *vocab_sizes: int) -> CostOptions:
        """Return the options of a model, from its configuration and the size of each stack's dictionary."""
        names = [option.name for option in fields(cls) if option.name != "vocab_size" and hasattr(cfg, option.name)]
        values = {name: getattr(cfg, name) for name in names}
        if getattr(cfg, "no_token_positional_embeddings", False):  # neither learned nor others
            values |= {name: False for name in names if name.endswith("_learned_pos")}
        if len(vocab_sizes) > 1:
            values["tgt_vocab_size"] = vocab_sizes[1]
        return cls(vocab_size=vocab_sizes[0], **values)

    def length(self, stack: Stack) -> int:
        """Return the number of tokens in a stack's input."""
        return {"source": self.src_len, "target": self.tgt_len}[stack.tokens]

    def positions(self, stack: Stack) -> int:
        """Return the number of learned positions of a stack, from the first token's on."""
        return getattr(self, stack.positions)

    def dictionary_size(self, stack: Stack) -> int:
        """Return the number of entries of the stack's dictionary. Raises ValueError if it is unknown."""
        size = self.tgt_vocab_size or self.vocab_size if stack.tokens == "target" else self.vocab_size
        if size is None:
            raise ValueError("vocab_size is None: the dictionary's size is not known")
        return size


@dataclass(frozen=True)
class Cost:
    """Cost of one subnet.

    ``params`` and ``flops`` include embeddings and output projection; they are None if the size of the vocabulary is
    unknown. ``params_without_embeddings`` leaves out token tables, learned positions and the output projection;
    ``flops_without_output_projection`` leaves out the projection to the vocabulary. HAT publishes these two.
    """

    params: int | None
    params_without_embeddings: int
    flops: int | None
    flops_without_output_projection: int

    def to_dict(self) -> dict[str, int | None]:
        """Return the four figures by name."""
        return asdict(self)


def subnet_cost(subnet: Subnet, options: CostOptions | None = None) -> Cost:
    """Count ``subnet``: the parameters of its static twin, and one forward pass of one sentence pair."""
    options = options or CostOptions()
    inner, macs = _layers(subnet, options)
    if options.vocab_size is None:
        return Cost(None, inner, None, 2 * macs)
    output = subnet.family.stack(subnet.family.output)
    length, words = options.length(output), options.dictionary_size(output)
    projection = length * subnet.width(output.name) * words
    return Cost(
        params=inner + _embeddings(subnet, options),
        params_without_embeddings=inner,
        flops=2 * (macs + projection),
        flops_without_output_projection=2 * macs,
    )


def _layers(subnet: Subnet, options: CostOptions) -> tuple[int, int]:
    """Return (parameters, multiply-accumulates) between the embeddings and the projection to the vocabulary."""
    params = macs = 0
    for stack in subnet.family.stacks:
        outside = stack.setting(options, "layernorm_embedding") + stack.normalize_before(options)
        params += _norms(outside, subnet.width(stack.name))
        length = options.length(stack)
        for layer in subnet.layers(stack.name):
            for block in stack.blocks:
                memory = subnet.family.stack(getattr(block, "reads", None) or stack.name)
                block_params, block_macs = block.cost(layer, length, options.length(memory))
                params += block_params + _norms(block.norms, layer.width)
                macs += block_macs
        for before, after in filter(None, subnet.maps(stack.name)):
            params += (before + 1) * after
            macs += length * before * after
    if (head := subnet.family.head) is not None:
        output = subnet.family.stack(subnet.family.output)
        head_params, head_macs = head.cost(subnet.width(output.name), options.length(output))
        params += head_params + _norms(head.norms, subnet.width(output.name))
        macs += head_macs
    return params, macs


def _norms(count: int, dim: int) -> int:
    return 2 * count * dim


def _embeddings(subnet: Subnet, options: CostOptions) -> int:
    """Return the parameters of the token tables, the output projection and learned positions.

    Embeddings shared by stacks of different width are one table of the largest width, as in the static twin.
    """
    family = subnet.family
    sizes = {stack.name: options.dictionary_size(stack) * subnet.width(stack.name) for stack in family.stacks}
    if options.share_all_embeddings:
        params = max(sizes.values())
    else:
        option, value = family.own_output
        params = sum(sizes.values()) + (sizes[family.output] if getattr(options, option) == value else 0)
    if family.head is not None:
        params += options.dictionary_size(family.stack(family.output))  # the projection's bias
    for stack in family.stacks:
        if stack.learned_pos(options):
            params += (options.positions(stack) + _FIRST_POSITION) * subnet.width(stack.name)
    return params
