"""The arch encoding v(a): the numbers by which a router of MoS (arXiv 2306.04845) distinguishes subnets.

Both kinds follow the family's stacks in order. Each stack has its width, its depth, and then the per-layer dimensions
of its blocks. For an encoder-decoder these are HAT's ten features:

1. encoder embed dim, 2. encoder layers, 3. encoder FFN dim, 4. encoder self-attention heads,
5. decoder embed dim, 6. decoder layers, 7. decoder FFN dim, 8. decoder self-attention heads,
9. cross-attention heads, 10. cross-attention span (in encoder layers: 1, 2 or 3).

`aggregate` takes the mean over the present layers of the per-layer features: one number for each dimension.
`per_layer` replaces each of these by its values layer by layer, first layer first, up to the space's largest
depth, and 0 where the layer is absent.

Every number is divided by the largest choice of the space in use, so that the largest subnet encodes to ones. The span
is not clamped to the encoder's depth here: the feature is the chosen value.
"""

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import show
from mos_fairseq.search_space.space import SearchSpace
from mos_fairseq.search_space.subnet import Subnet

ENCODING_KINDS = ("aggregate", "per_layer")


def encoding_size(space: SearchSpace, kind: str) -> int:
    """Return the length of `arch_encoding` for subnets of `space`. Raises `InputError` for an unknown kind."""
    _check_kind(kind)
    if kind == "aggregate":
        return len(space.encoded)
    stacks = [space.family.owners.get(dimension.key) for dimension in space.encoded]
    return sum(1 if stack is None else space.max(stack.depth.key) for stack in stacks)


def arch_encoding(subnet: Subnet, space: SearchSpace, kind: str) -> list[float]:
    """Return the encoding of `subnet`, each number in [0, 1], in the order given in this module's docstring.

    Raises:
        InputError: `kind` is unknown, or `space` does not contain the subnet (a router would extrapolate).
    """
    _check_kind(kind)
    space.check(subnet)
    result: list[float] = []
    for dimension in space.encoded:
        scale, value = dimension.amount(space.max(dimension.key)), subnet[dimension.key]
        stack = space.family.owners.get(dimension.key)
        if stack is None:
            result.append(value / scale)
            continue
        amounts = [dimension.amount(item) for item in value]
        if kind == "aggregate":
            result.append(sum(amounts) / len(amounts) / scale)
        else:
            absent = space.max(stack.depth.key) - len(amounts)
            result.extend([amount / scale for amount in amounts] + [0.0] * absent)
    return result


def _check_kind(kind: str) -> None:
    if kind not in ENCODING_KINDS:
        raise InputError(f"arch encoding {show(kind)}: allowed are {', '.join(ENCODING_KINDS)}")
