"""The arch encoding v(a): the numbers from which a router of MoS (arXiv 2306.04845) tells subnets apart.

Two kinds, both in this order of features:

1. encoder embed dim, 2. encoder layers, 3. encoder FFN dim, 4. encoder self-attention heads,
5. decoder embed dim, 6. decoder layers, 7. decoder FFN dim, 8. decoder self-attention heads,
9. cross-attention heads, 10. cross-attention span (in encoder layers: 1, 2 or 3).

`aggregate` takes the mean over the present layers of the per-layer features (3, 4, 7-10): 10 numbers.
`per_layer` replaces each of these by its values layer by layer, first layer first, up to the space's largest
depth, and 0 where the layer is absent: 4 + 2 * max encoder layers + 4 * max decoder layers numbers.

Every number is divided by the largest choice of the space in use, so that the largest subnet encodes to ones.
The span is not clamped to the encoder's depth here: the feature states what was chosen.
"""

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import show
from mos_fairseq.search_space._keys import LAYER_KEYS, SPAN_KEY, SPAN_LAYERS, depth_key
from mos_fairseq.search_space.space import SearchSpace
from mos_fairseq.search_space.subnet import Subnet

ENCODING_KINDS = ("aggregate", "per_layer")

ENCODING_FEATURES = (
    "encoder_embed_dim",
    "encoder_layers",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "decoder_embed_dim",
    "decoder_layers",
    "decoder_ffn_embed_dim",
    "decoder_attention_heads",
    "decoder_ende_attention_heads",
    "decoder_arbitrary_ende_attn",
)


def encoding_size(space: SearchSpace, kind: str) -> int:
    """The length of `arch_encoding` for subnets of `space`. Raises `InputError` for an unknown kind."""
    _check_kind(kind)
    if kind == "aggregate":
        return len(ENCODING_FEATURES)
    return sum(space.max(depth_key(key)) if key in LAYER_KEYS else 1 for key in ENCODING_FEATURES)


def arch_encoding(subnet: Subnet, space: SearchSpace, kind: str) -> list[float]:
    """The encoding of `subnet`, each number in [0, 1], in the order that this module's text gives.

    Raises:
        InputError: an unknown `kind`, or a subnet that `space` does not contain (a router would extrapolate).
    """
    _check_kind(kind)
    space.check(subnet)
    result: list[float] = []
    for key in ENCODING_FEATURES:
        scale = _amount(key, space.max(key))
        if key not in LAYER_KEYS:
            result.append(getattr(subnet, key) / scale)
            continue
        amounts = [_amount(key, value) for value in getattr(subnet, key)]
        if kind == "aggregate":
            result.append(sum(amounts) / len(amounts) / scale)
        else:
            absent = space.max(depth_key(key)) - len(amounts)
            result.extend([amount / scale for amount in amounts] + [0.0] * absent)
    return result


def _amount(key: str, value: int) -> int:
    """A value as a quantity: a span's code stands for a number of layers, everything else for itself."""
    return SPAN_LAYERS[value] if key == SPAN_KEY else value


def _check_kind(kind: str) -> None:
    if kind not in ENCODING_KINDS:
        raise InputError(f"arch encoding {show(kind)}: allowed are {', '.join(ENCODING_KINDS)}")
