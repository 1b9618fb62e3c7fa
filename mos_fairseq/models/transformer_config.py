"""Options that the supernet and the static twin share, named as fairseq's ``transformer`` names them.

Flat on purpose: subclasses of fairseq's nested ``TransformerConfig`` lose overrides silently.
"""

import math
from dataclasses import dataclass, field

from fairseq import utils
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, OmegaConf, open_dict
from torch import nn

from mos_fairseq.errors import InputError
from mos_fairseq.modules import ElasticEmbedding, LayerOptions, PositionalEmbedding


@dataclass
class TransformerBaseConfig(FairseqDataclass):
    """Everything but the sizes, which follow from the search space or the subnet."""

    activation_fn: ChoiceEnum(utils.get_available_activation_fns()) = field(
        default="relu", metadata={"help": "activation function of the feed-forward layers"}
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout of embeddings and sublayer outputs"})
    attention_dropout: float = field(default=0.0, metadata={"help": "dropout of attention probabilities"})
    activation_dropout: float = field(
        default=0.0, metadata={"help": "dropout after the activation in the FFN", "argparse_alias": "--relu-dropout"}
    )
    encoder_normalize_before: bool = field(default=False, metadata={"help": "pre-norm encoder layers"})
    decoder_normalize_before: bool = field(default=False, metadata={"help": "pre-norm decoder layers"})
    encoder_learned_pos: bool = field(default=False, metadata={"help": "learned positions in the encoder"})
    decoder_learned_pos: bool = field(default=False, metadata={"help": "learned positions in the decoder"})
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "share decoder input and output embeddings"}
    )
    share_all_embeddings: bool = field(
        default=False,
        metadata={"help": "share encoder, decoder and output embeddings (needs a joined dictionary)"},
    )
    no_token_positional_embeddings: bool = field(default=False, metadata={"help": "no position embeddings"})
    layernorm_embedding: bool = field(default=False, metadata={"help": "layer norm on the embeddings"})
    no_scale_embedding: bool = field(
        default=False, metadata={"help": "do not multiply embeddings by the square root of their width"}
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


def check_rates(cfg: FairseqDataclass, *names: str) -> None:
    """Raise InputError unless each named option lies in [0, 1)."""
    for name in names:
        value = getattr(cfg, name)
        if not 0 <= value < 1:
            raise InputError(f"{name} is {value}: allowed are numbers from 0 to below 1")


def layer_options(cfg: TransformerBaseConfig, side: str) -> LayerOptions:
    """Layer options of one ``side``, "encoder" or "decoder"."""
    return LayerOptions(
        dropout=cfg.dropout,
        attention_dropout=cfg.attention_dropout,
        activation_dropout=cfg.activation_dropout,
        activation_fn=str(cfg.activation_fn),
        normalize_before=getattr(cfg, f"{side}_normalize_before"),
    )


def outer_norms(cfg: TransformerBaseConfig, side: str, make_norm, width: int) -> tuple[nn.Module | None, ...]:
    """``layernorm_embedding`` and the final ``layer_norm`` (pre-norm only) of one side; None where not in use."""
    return (
        make_norm(width) if cfg.layernorm_embedding else None,
        make_norm(width) if getattr(cfg, f"{side}_normalize_before") else None,
    )


def embed_scale(cfg: TransformerBaseConfig, embed_dim: int) -> float:
    """Factor on token embeddings of (active) width d: sqrt(d), or 1 with ``no_scale_embedding``."""
    return 1.0 if cfg.no_scale_embedding else math.sqrt(embed_dim)


def build_positions(
    cfg: TransformerBaseConfig, side: str, embed_dim: int, position_dim: int, padding_idx: int
) -> PositionalEmbedding | None:
    """Position embeddings of one side: learned ones as wide as it is, or sinusoidal ones cut from ``position_dim``."""
    if cfg.no_token_positional_embeddings:
        return None
    positions = cfg.max_source_positions if side == "encoder" else cfg.max_target_positions
    learned = getattr(cfg, f"{side}_learned_pos")
    return PositionalEmbedding(positions, embed_dim if learned else position_dim, padding_idx, learned)


def build_embeddings(
    cfg: TransformerBaseConfig, src_dict, tgt_dict, encoder_dim: int, decoder_dim: int
) -> tuple[ElasticEmbedding, ElasticEmbedding, ElasticEmbedding]:
    """Tables of encoder input, decoder input and output projection, possibly one and the same.

    A shared table is as wide as the wider side; the narrower reads its first columns.
    """
    if cfg.share_all_embeddings:
        if src_dict != tgt_dict:
            raise InputError(
                "share_all_embeddings is set but source and target dictionaries differ: "
                "preprocess with --joined-dictionary or drop --share-all-embeddings"
            )
        table = ElasticEmbedding(len(src_dict), max(encoder_dim, decoder_dim), src_dict.pad())
        return table, table, table
    encoder_table = ElasticEmbedding(len(src_dict), encoder_dim, src_dict.pad())
    decoder_table = ElasticEmbedding(len(tgt_dict), decoder_dim, tgt_dict.pad())
    if cfg.share_decoder_input_output_embed:
        return encoder_table, decoder_table, decoder_table
    return encoder_table, decoder_table, ElasticEmbedding(len(tgt_dict), decoder_dim, tgt_dict.pad())


def record_in_config(cfg, group: str, key: str, value: str) -> None:
    """Write ``value`` into the whole run configuration that ``cfg`` belongs to, so that checkpoints carry it.

    fairseq hands components a merged copy of their part of the configuration, but saves the original: a file name
    there would make the checkpoint depend on a file that may change or vanish. The copy still knows its parent.
    """
    parent = cfg._get_parent() if OmegaConf.is_config(cfg) else None
    if parent is not None and group in parent and OmegaConf.is_dict(parent[group]):
        with open_dict(parent):
            parent[group][key] = value
    if OmegaConf.is_config(cfg):
        with open_dict(cfg):
            cfg[key] = value
    else:
        setattr(cfg, key, value)
