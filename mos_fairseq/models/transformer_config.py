"""Options that the supernet and the static twin share, under the names of fairseq's ``transformer``.

They are flat on purpose: subclasses of fairseq's nested ``TransformerConfig`` lose overrides silently.
"""

import math
from dataclasses import dataclass, field
from typing import Optional  # fairseq reads the annotations and does not support `str | None`

from fairseq import utils
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, OmegaConf, open_dict

from mos_fairseq.errors import below_one
from mos_fairseq.model_options import FLAGS
from mos_fairseq.modules import LayerOptions, PositionalEmbedding
from mos_fairseq.search_space import Stack


def _flag(name: str) -> bool:
    return field(default=False, metadata={"help": FLAGS[name]})


@dataclass
class TransformerOptions(FairseqDataclass):
    """Options of models of all families. Sizes are not among them: they follow from the search space or the subnet."""

    activation_fn: ChoiceEnum(utils.get_available_activation_fns()) = field(
        default="relu", metadata={"help": "activation function of the feed-forward layers"}
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout of embeddings and sublayer outputs"})
    attention_dropout: float = field(default=0.0, metadata={"help": "dropout of attention probabilities"})
    activation_dropout: float = field(
        default=0.0, metadata={"help": "dropout after the activation in the FFN", "argparse_alias": "--relu-dropout"}
    )
    decoder_learned_pos: bool = _flag("decoder_learned_pos")
    share_decoder_input_output_embed: bool = _flag("share_decoder_input_output_embed")
    no_token_positional_embeddings: bool = _flag("no_token_positional_embeddings")
    layernorm_embedding: bool = _flag("layernorm_embedding")
    no_scale_embedding: bool = _flag("no_scale_embedding")


@dataclass
class TransformerBaseConfig(TransformerOptions):
    """Options of encoder-decoders."""

    encoder_normalize_before: bool = _flag("encoder_normalize_before")
    decoder_normalize_before: bool = _flag("decoder_normalize_before")
    encoder_learned_pos: bool = _flag("encoder_learned_pos")
    share_all_embeddings: bool = _flag("share_all_embeddings")
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


@dataclass
class TransformerLanguageModelBaseConfig(TransformerOptions):
    """Options of language models, which are always pre-norm, like fairseq's ``transformer_lm_gpt`` and ``_big``."""

    tokens_per_sample: int = II("task.tokens_per_sample")
    max_target_positions: Optional[int] = II("task.max_target_positions")  # default: the task's sample length


@dataclass
class RobertaBaseConfig(FairseqDataclass):
    """Options of masked language models, with the names and defaults of fairseq's ``roberta``. Positions are learned,
    embeddings normalised and not scaled."""

    activation_fn: ChoiceEnum(utils.get_available_activation_fns()) = field(
        default="gelu", metadata={"help": "activation function of the feed-forward layers and of the head"}
    )
    pooler_activation_fn: ChoiceEnum(utils.get_available_activation_fns()) = field(
        default="tanh", metadata={"help": "activation function of classification heads"}
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout of embeddings and sublayer outputs"})
    attention_dropout: float = field(default=0.1, metadata={"help": "dropout of attention probabilities"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout after the activation in the FFN"})
    pooler_dropout: float = field(default=0.0, metadata={"help": "dropout in classification heads"})
    encoder_normalize_before: bool = _flag("encoder_normalize_before")
    untie_weights_roberta: bool = _flag("untie_weights_roberta")
    max_positions: Optional[int] = field(
        default=II("oc.select:task.tokens_per_sample,null"),
        metadata={"help": "tokens of the longest sentence (default: --tokens-per-sample)"},
    )
    layer_norm_eps: float = field(
        default=LayerOptions.layer_norm_eps,
        metadata={"help": "epsilon added to variances in layer norms (default: fairseq's; Google's BERT has 1e-12)"},
    )
    load_checkpoint_heads: bool = field(
        default=False, metadata={"help": "make the classification heads that a checkpoint has, and load them"}
    )


def check_rates(cfg: FairseqDataclass, *names: str) -> None:
    """Raise InputError unless each named option lies in [0, 1)."""
    below_one(**{name: getattr(cfg, name) for name in names})


def layer_options(cfg: TransformerOptions, stack: Stack) -> LayerOptions:
    """Return the layer options of one stack."""
    return LayerOptions(
        dropout=cfg.dropout,
        attention_dropout=cfg.attention_dropout,
        activation_dropout=cfg.activation_dropout,
        activation_fn=str(cfg.activation_fn),
        normalize_before=stack.normalize_before(cfg),
        layer_norm_eps=getattr(cfg, "layer_norm_eps", LayerOptions.layer_norm_eps),
        stock_name=f"Transformer{stack.name.capitalize()}Layer",
    )


def embed_scale(cfg: TransformerOptions, stack: Stack, embed_dim: int) -> float:
    """Return the factor on token embeddings of (active) width d: sqrt(d), or 1 with ``no_scale_embedding``."""
    return 1.0 if stack.setting(cfg, "no_scale_embedding") else math.sqrt(embed_dim)


def build_positions(
    cfg: TransformerOptions, stack: Stack, embed_dim: int, position_dim: int, padding_idx: int
) -> PositionalEmbedding | None:
    """Build position embeddings of one stack: learned in its own width, or sinusoidal, cut from ``position_dim``."""
    if stack.setting(cfg, "no_token_positional_embeddings"):
        return None
    learned, positions = stack.learned_pos(cfg), getattr(cfg, stack.positions)
    return PositionalEmbedding(positions, embed_dim if learned else position_dim, padding_idx, learned)


def record_in_config(cfg, group: str, key: str, value: str) -> None:
    """Write ``value`` into the whole run configuration that ``cfg`` belongs to, so that checkpoints contain it.

    fairseq passes components a merged copy of their part of the configuration, but saves the original. A file name
    there would make the checkpoint depend on a file that may change or vanish. The copy still has its parent.
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
