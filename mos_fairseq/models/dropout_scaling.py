"""Scale dropout with the active subnet: smaller subnets need less dropout."""

from __future__ import annotations

from mos_fairseq.search_space import SearchSpace, Subnet

DROPOUT_SCALINGS = ("width", "layer", "largest", "none")


def dropout_scales(
    scaling: str, subnet: Subnet, space: SearchSpace, side: str
) -> tuple[float, list[tuple[float, float]]]:
    """Return factors on the dropout rates of a ``side``, "encoder" or "decoder", of a supernet with ``subnet`` active.

    - ``width``: all rates by d / d_max, the width of the dropped tensor: of a side's embeddings, and of its layers,
      which usually have the same width (after HAT, arXiv 2005.14187, whose code keeps the rates of attention
      probabilities and of the residual after the encoder's self-attention).
    - ``layer``: every rate by the width of the dropped tensor (after TODM's adaptive dropout, arXiv 2309.01947, which
      scales each feed-forward layer's rate by its sampled over its largest number of channels): activation dropout by
      f / f_max of its own layer's FFN, the rest by d / d_max.
    - ``largest``: 1 for the space's largest subnet and 0 for all others (BigNAS, arXiv 2003.11142: only the largest
      subnet, which learns from the labels, is regularised. Weight decay, the other half of that rule, needs no option:
      the optimizer applies it once an update, and all parameters belong to the largest subnet).
    - ``none``: 1.

    Returns:
        the factor for the embeddings' dropout; and for each layer the factor for its other rates, and the factor for
        its activation dropout.
    """
    largest = space.largest()
    pairs = list(zip(subnet.layers(side), largest.layers(side), strict=False))
    if scaling in ("width", "layer"):
        widths = [layer.width / most.width for layer, most in pairs]
        inner = [layer.ffn / most.ffn for layer, most in pairs] if scaling == "layer" else widths
        return subnet.width(side) / largest.width(side), list(zip(widths, inner, strict=True))
    scale = {"largest": float(subnet == largest), "none": 1.0}[scaling]
    return scale, [(scale, scale)] * len(pairs)
