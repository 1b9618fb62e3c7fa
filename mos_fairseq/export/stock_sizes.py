"""Check whether a subnet fits the sizes of fairseq's own Transformers and of Hugging Face's, which have one number for
a whole stack. Sizes only, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import Stack, Subnet

STOCK_ARCHITECTURES = {"encoder_decoder": "transformer", "decoder_only": "transformer_lm", "encoder_only": "roberta"}
"""fairseq's own model of each family, where it has one."""


@dataclass(frozen=True)
class StockSizes:
    """Sizes for which stock fairseq has one number per stack; attention is as wide as the layers."""

    width: int
    layers: int
    ffn: int
    heads: int

    def options(self, stack: Stack) -> dict[str, int]:
        """Return the sizes by fairseq's option names."""
        return dict(zip(option_names(stack), (self.width, self.layers, self.ffn, self.heads), strict=True))

    @classmethod
    def from_options(cls, options: Mapping[str, int], stack: Stack) -> StockSizes:
        """Return the sizes of a model with fairseq's ``options``."""
        return cls(*(options[name] for name in option_names(stack)))


def option_names(stack: Stack) -> tuple[str, str, str, str]:
    """Return fairseq's names of a stack's width, depth, FFN size and number of heads: the keys of the first blocks.
    fairseq has no separate number of heads for cross-attention."""
    return stack.width.key, stack.depth.key, stack.feed_forward.size.key, stack.attentions[0].heads.key


def stock_sizes(subnet: Subnet, allow_padding: bool = False) -> dict[str, StockSizes]:
    """Return the sizes, by stack, of fairseq's own Transformer that can hold ``subnet``.

    Args:
        allow_padding: smaller layers may be padded with zeros.

    Raises:
        InputError: there are no such sizes; the message says why.
    """
    for stack in subnet.family.stacks:
        if subnet.maps(stack.name):
            key = stack.inside(subnet.values).key
            raise InputError(f"{key} is {subnet.to_dict()[key]}: stock fairseq has no maps around layers")
    sizes = {stack.name: stack_sizes(subnet, stack, allow_padding) for stack in subnet.family.stacks}
    check_last_output_only(subnet, "stock fairseq")
    return sizes


def check_hugging_face(subnet: Subnet, allow_padding: bool = False) -> StockSizes:
    """Return the sizes of a masked language model of Hugging Face's transformers that can hold ``subnet``.

    Raises:
        InputError: there is none; the message says why.
    """
    (stack,) = subnet.family.stacks
    if stack.inside(subnet.values) is stack.bottleneck:
        widths = [layer.width for layer in subnet.layers(stack.name)]
        raise InputError(
            f"{stack.bottleneck.key} is {widths}: transformers has no model with a map before each layer that feeds "
            "the residual connection; --format twin holds such subnets"
        )
    if stack.inside(subnet.values) is stack.hidden and subnet[stack.hidden.key] == subnet.width(stack.name):
        width = subnet.width(stack.name)
        raise InputError(f"{stack.hidden.key} is {width}, as wide as the embeddings: Electra then has no maps")
    return stack_sizes(subnet, stack, allow_padding, "transformers")


def check_hugging_face_translation(subnet: Subnet, allow_padding: bool = False) -> dict[str, StockSizes]:
    """Return the sizes, by stack, of a translation model of Hugging Face's transformers that can hold ``subnet``.

    Raises:
        InputError: there is none; the message says why.
    """
    reader, stacks = "transformers", subnet.family.stacks
    if len({subnet.width(stack.name) for stack in stacks}) > 1:
        listing = " and ".join(f"{stack.width.key} is {subnet.width(stack.name)}" for stack in stacks)
        raise InputError(f"{listing}: both sides of transformers' translation models have the same width")
    check_last_output_only(subnet, reader)
    return {stack.name: stack_sizes(subnet, stack, allow_padding, reader) for stack in stacks}


def check_last_output_only(subnet: Subnet, reader: str) -> None:
    """Raise InputError if a layer reads more than another stack's last output, which ``reader`` does not support."""
    for key, read in subnet.family.read_by_span.items():
        if any(span != 1 for span in subnet.cross_spans):
            raise InputError(
                f"{key} is {list(subnet[key])}: {reader} attends to the last {read.name} layer only (-1); if the "
                f"search space has it, mos-search --choices {key}=-1 finds such subnets"
            )


def stack_sizes(subnet: Subnet, stack: Stack, allow_padding: bool, reader: str = "stock fairseq") -> StockSizes:
    """Return the sizes of one stack, whose layers have one width; see :func:`stock_sizes`. Messages name ``reader``."""
    layers = subnet.layers(stack.name)
    width, ffns = layers[0].width, [layer.ffn for layer in layers]
    width_name, _, ffn_name, _ = option_names(stack)
    shapes = {(a.heads, a.inner // a.heads) for layer in layers for a in layer.attentions.values()}
    heads, head_width = max(h for h, _ in shapes), max(w for _, w in shapes)
    listing = " and ".join(f"{h} heads of width {w}" for h, w in sorted(shapes, reverse=True))
    hint = "" if allow_padding else "; padding with zeros (--allow-padding) may help"
    if len(shapes) > 1 or heads * head_width != width:
        if not allow_padding:
            raise InputError(
                f"{stack.name} has {listing}: {reader} has one number of heads for all, with a total width of "
                f"{width_name}={width}{hint}"
            )
        fitting = [h for h in range(heads, width // head_width + 1) if width % h == 0]
        if not fitting:
            raise InputError(
                f"{stack.name} has {listing}: no number of heads that divides {width_name}={width} has room for them"
            )
        heads = fitting[0]
    if len(set(ffns)) > 1 and not allow_padding:
        raise InputError(f"{ffn_name} is {ffns}: {reader} has one size for all layers{hint}")
    return StockSizes(width, len(layers), max(ffns), heads)
