"""Parameters and FLOPs of a subnet, counted from its sizes alone: exact, and without building anything.

A FLOP is half a multiply-accumulate, as in HAT (arXiv 2005.14187) and in :mod:`torch.utils.flop_counter`: only matrix
products count, causal attention is counted whole. Experts and routers never count: a subnet is a dense Transformer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import Subnet


@dataclass(frozen=True)
class CostOptions:
    """What, besides the subnet, a model's cost depends on; named as fairseq names it.

    Args:
        src_len, tgt_len: tokens of the one sentence pair whose forward pass is counted (HAT: 30 and 30).
        vocab_size: entries of the dictionary, or of the source dictionary; None: unknown, so are the embeddings.
        tgt_vocab_size: entries of the target dictionary, where that is another one.
        max_source_positions, max_target_positions: of learned position embeddings.

    Raises:
        InputError: a size is not positive, or all embeddings are shared between two dictionaries.
    """

    src_len: int = 30
    tgt_len: int = 30
    vocab_size: int | None = None
    tgt_vocab_size: int | None = None
    share_all_embeddings: bool = False
    share_decoder_input_output_embed: bool = False
    encoder_normalize_before: bool = False
    decoder_normalize_before: bool = False
    layernorm_embedding: bool = False
    encoder_learned_pos: bool = False
    decoder_learned_pos: bool = False
    max_source_positions: int = 1024
    max_target_positions: int = 1024

    def __post_init__(self) -> None:
        sizes = ("src_len", "tgt_len", "vocab_size", "tgt_vocab_size", "max_source_positions", "max_target_positions")
        for name in sizes:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: allowed are whole numbers from 1")
        if self.share_all_embeddings and self.tgt_vocab_size not in (None, self.vocab_size):
            raise InputError(
                f"tgt_vocab_size={self.tgt_vocab_size} with share_all_embeddings: shared embeddings have one "
                f"dictionary, of vocab_size={self.vocab_size}"
            )


@dataclass(frozen=True)
class Cost:
    """Cost of one subnet.

    ``params`` and ``flops`` include embeddings and output projection and are None where the vocabulary's size is not
    known. ``params_without_embeddings`` leaves out token tables, learned positions and the output projection,
    ``flops_without_output_projection`` the projection to the vocabulary: the figures that HAT publishes.
    """

    params: int | None
    params_without_embeddings: int
    flops: int | None
    flops_without_output_projection: int

    def to_dict(self) -> dict[str, int | None]:
        """The four figures by name."""
        return asdict(self)


def subnet_cost(subnet: Subnet, options: CostOptions | None = None) -> Cost:
    """Count ``subnet``: what its static twin has and does in one forward pass of one sentence pair."""
    options = options or CostOptions()
    inner, macs = _layers(subnet, options)
    if options.vocab_size is None:
        return Cost(None, inner, None, 2 * macs)
    tgt_vocab_size = options.tgt_vocab_size or options.vocab_size
    projection = options.tgt_len * subnet.decoder_embed_dim * tgt_vocab_size
    return Cost(
        params=inner + _embeddings(subnet, options, options.vocab_size, tgt_vocab_size),
        params_without_embeddings=inner,
        flops=2 * (macs + projection),
        flops_without_output_projection=2 * macs,
    )


def _layers(subnet: Subnet, options: CostOptions) -> tuple[int, int]:
    """(parameters, multiply-accumulates) of everything between the embeddings and the output projection."""
    params = _norms(options.layernorm_embedding + options.encoder_normalize_before, subnet.encoder_embed_dim)
    params += _norms(options.layernorm_embedding + options.decoder_normalize_before, subnet.decoder_embed_dim)
    macs = 0
    s, t = options.src_len, options.tgt_len
    d_enc, d_dec = subnet.encoder_embed_dim, subnet.decoder_embed_dim
    for ffn, heads in zip(subnet.encoder_ffn_embed_dim, subnet.encoder_attention_heads, strict=True):
        parts = [_attention(subnet, heads, d_enc, s), _ffn(d_enc, ffn, s), (_norms(2, d_enc), 0)]
        params, macs = params + sum(p for p, _ in parts), macs + sum(m for _, m in parts)
    for ffn, heads, cross_heads, span in zip(
        subnet.decoder_ffn_embed_dim,
        subnet.decoder_attention_heads,
        subnet.decoder_ende_attention_heads,
        subnet.cross_spans,
        strict=True,
    ):
        cross = _attention(subnet, cross_heads, d_dec, t, memory=(d_enc, span * s))
        parts = [_attention(subnet, heads, d_dec, t), cross, _ffn(d_dec, ffn, t), (_norms(3, d_dec), 0)]
        params, macs = params + sum(p for p, _ in parts), macs + sum(m for _, m in parts)
    return params, macs


def _attention(
    subnet: Subnet, heads: int, dim: int, length: int, memory: tuple[int, int] | None = None
) -> tuple[int, int]:
    """(parameters, MACs) of an attention over ``length`` queries; ``memory``: (width, length) of what it attends to."""
    q = subnet.qkv_dim or heads * subnet.head_dim
    memory_dim, memory_length = memory or (dim, length)
    params = (dim + 1) * q + 2 * (memory_dim + 1) * q + (q + 1) * dim
    macs = 2 * length * dim * q + 2 * memory_length * memory_dim * q  # query and output, key and value
    return params, macs + 2 * length * memory_length * q  # scores, and their product with the values


def _ffn(dim: int, ffn: int, length: int) -> tuple[int, int]:
    return (dim + 1) * ffn + (ffn + 1) * dim, 2 * length * dim * ffn


def _norms(count: int, dim: int) -> int:
    return 2 * count * dim


def _embeddings(subnet: Subnet, options: CostOptions, src_vocab_size: int, tgt_vocab_size: int) -> int:
    """Parameters of the token tables, the output projection and learned positions.

    Embeddings shared by sides of unequal width are one table as wide as the wider side, as in the static twin.
    """
    d_enc, d_dec = subnet.encoder_embed_dim, subnet.decoder_embed_dim
    if options.share_all_embeddings:
        params = src_vocab_size * max(d_enc, d_dec)
    else:
        tables = 1 if options.share_decoder_input_output_embed else 2
        params = src_vocab_size * d_enc + tables * tgt_vocab_size * d_dec
    first = 2  # fairseq counts positions from after the padding symbol, number 1
    if options.encoder_learned_pos:
        params += (options.max_source_positions + first) * d_enc
    if options.decoder_learned_pos:
        params += (options.max_target_positions + first) * d_dec
    return params
