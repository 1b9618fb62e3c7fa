"""How dropout depends on the active subnet: smaller ones need less of it."""

from __future__ import annotations

from mos_fairseq.search_space import SearchSpace, Subnet

DROPOUT_SCALINGS = ("width", "layer", "largest", "none")


def dropout_scales(
    scaling: str, subnet: Subnet, space: SearchSpace, side: str
) -> tuple[float, list[tuple[float, float]]]:
    """Factors on the dropout rates of one ``side``, "encoder" or "decoder", of a supernet with ``subnet`` active.

    - ``width``: d / d_max of the width of what is dropped on all rates (HAT, arXiv 2005.14187): of a side's embeddings,
      and of its layers, which are mostly as wide.
    - ``layer``: every dropout by the width of what it drops (after TODM's adaptive dropout, arXiv 2309.01947, which
      scales that of each feed-forward layer by its sampled over its largest number of channels): activation dropout by
      f / f_max of its own layer's FFN, the rest by d / d_max.
    - ``largest``: 1 for the space's largest subnet and 0 for all others (BigNAS, arXiv 2003.11142: only the biggest,
      which learns from the labels, is regularised. Its other half, weight decay, needs no option: the optimizer applies
      it once an update, to parameters that are all the largest's).
    - ``none``: 1.

    Returns:
        the factor on the rate of the embeddings' dropout, and layer by layer that on activation dropout's rate, after
        that on the layer's other rates.
    """
    largest = space.largest()
    pairs = list(zip(subnet.layers(side), largest.layers(side), strict=False))
    if scaling in ("width", "layer"):
        widths = [layer.width / most.width for layer, most in pairs]
        inner = [layer.ffn / most.ffn for layer, most in pairs] if scaling == "layer" else widths
        return subnet.width(side) / largest.width(side), list(zip(widths, inner, strict=True))
    scale = {"largest": float(subnet == largest), "none": 1.0}[scaling]
    return scale, [(scale, scale)] * len(pairs)
