"""``transformer_mos``: the encoder-decoder supernet (HAT, arXiv 2005.14187) with Mixture-of-Supernets layers
(MoS, arXiv 2306.04845). Sizes follow from the search space; ``--mos-routing none`` is plain weight sharing."""

import copy
import logging
from dataclasses import dataclass, field, fields
from typing import Optional  # fairseq reads the annotations, and knows no `str | None`

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor

from mos_fairseq.distributed import SupernetDataParallel
from mos_fairseq.errors import InputError
from mos_fairseq.models.dropout_scaling import DROPOUT_SCALINGS, dropout_scales
from mos_fairseq.models.identity import check_identity, make_identity
from mos_fairseq.models.static_copy import copy_active
from mos_fairseq.models.transformer_config import (
    TransformerBaseConfig,
    build_embeddings,
    check_rates,
    layer_options,
    outer_norms,
)
from mos_fairseq.models.transformer_decoder import TransformerDecoder
from mos_fairseq.models.transformer_encoder import TransformerEncoder
from mos_fairseq.models.transformer_model import TransformerModel
from mos_fairseq.models.transformer_subnet import (
    TransformerSubnetConfig,
    TransformerSubnetModel,
    attention_size,
)
from mos_fairseq.modules import (
    ElasticDecoderLayer,
    ElasticEncoderLayer,
    ElasticLayerNorm,
    LayerSizes,
    MixtureOptions,
)
from mos_fairseq.mos_options import CHOICES, MosOptions
from mos_fairseq.search_space import SearchSpace, Subnet, arch_encoding

logger = logging.getLogger(__name__)


@dataclass
class TransformerMosConfig(TransformerBaseConfig):
    """Options of the supernet."""

    # of the task, which at training replaces it by the space itself, so that checkpoints carry it; null elsewhere
    search_space: Optional[str] = "${oc.select:task.search_space,null}"
    mos_routing: ChoiceEnum(list(CHOICES["mos_routing"])) = field(
        default=MosOptions.mos_routing,
        metadata={"help": "how experts are mixed: none (plain weight sharing), one mixture a layer, or one a neuron"},
    )
    num_experts: int = field(
        default=MosOptions.num_experts, metadata={"help": "experts of each matrix that has them"}
    )
    mos_linears: ChoiceEnum(list(CHOICES["mos_linears"])) = field(
        default=MosOptions.mos_linears,
        metadata={"help": "matrices that have experts: the FFN's, the attention projections, or all"},
    )
    arch_encoding: ChoiceEnum(list(CHOICES["arch_encoding"])) = field(
        default=MosOptions.arch_encoding,
        metadata={"help": "the routers' input: ten averages, or every layer's sizes"},
    )
    router_hidden_dim: int = field(
        default=MosOptions.router_hidden_dim, metadata={"help": "hidden size of the routers"}
    )
    router_layers: int = field(
        default=MosOptions.router_layers, metadata={"help": "linear layers of a router; 1 is a linear router"}
    )
    router_dropout: float = field(default=0.1, metadata={"help": "dropout within the routers"})
    dropout_scaling: ChoiceEnum(list(DROPOUT_SCALINGS)) = field(
        default="width",
        metadata={
            "help": "a subnet's dropout: scaled by its embedding width over the largest (width), activation dropout by "
            "each layer's FFN width (layer), of the largest subnet only (largest), or all the same (none)"
        },
    )


def _mixture_options(cfg: TransformerMosConfig, space: SearchSpace) -> MixtureOptions:
    for name in ("num_experts", "router_hidden_dim", "router_layers"):
        if getattr(cfg, name) < 1:
            raise InputError(f"{name} is {getattr(cfg, name)}: allowed are whole numbers from 1 up")
    check_rates(cfg, "dropout", "attention_dropout", "activation_dropout", "router_dropout")
    return MixtureOptions(
        routing=str(cfg.mos_routing),
        num_experts=cfg.num_experts,
        linears=str(cfg.mos_linears),
        lowest_encoding=tuple(arch_encoding(space.smallest(), space, str(cfg.arch_encoding))),
        router_hidden_dim=cfg.router_hidden_dim,
        router_layers=cfg.router_layers,
        router_dropout=cfg.router_dropout,
    )


@register_model("transformer_mos", dataclass=TransformerMosConfig)
class TransformerMosModel(TransformerModel):
    """Supernet. One subnet is active at a time; a fresh model has the largest.

    ``identity`` is a buffer that holds search space and routing, so that weights are never loaded into a supernet of
    another space (:mod:`mos_fairseq.models.identity`).
    """

    def __init__(self, cfg: TransformerMosConfig, encoder, decoder, space: SearchSpace) -> None:
        super().__init__(cfg, encoder, decoder)
        self.search_space = space
        self.register_buffer("identity", make_identity(space, cfg))
        self.set_active_subnet(space.largest())

    @classmethod
    def build_model(cls, cfg: TransformerMosConfig, task) -> "TransformerMosModel":
        """Build for fairseq: the search space is the task's (``--task translation_mos``).

        Raises:
            InputError: no search space, or a bad one, or bad options.
        """
        if not cfg.search_space:
            raise InputError("transformer_mos needs a search space: use --task translation_mos --search-space SPACE")
        space = SearchSpace.from_spec(cfg.search_space)
        return cls.from_search_space(cfg, space, task.source_dictionary, task.target_dictionary)

    @classmethod
    @torch.inference_mode(False)  # whatever the caller's mode, training may follow
    def from_search_space(
        cls, cfg: TransformerMosConfig, space: SearchSpace, src_dict, tgt_dict
    ) -> "TransformerMosModel":
        """Build from a search space and two dictionaries."""
        mixture = _mixture_options(cfg, space)
        encoder_dim, decoder_dim = space.max("encoder_embed_dim"), space.max("decoder_embed_dim")
        tables = build_embeddings(cfg, src_dict, tgt_dict, encoder_dim, decoder_dim)

        def sizes(side: str, heads_key: str) -> LayerSizes:
            qkv_dim = attention_size(space, space.max(heads_key))
            return LayerSizes(
                space.max(f"{side}_embed_dim"), space.max(f"{side}_ffn_embed_dim"), qkv_dim, encoder_dim
            )

        def encoder_layer() -> ElasticEncoderLayer:
            key = "encoder_attention_heads"
            return ElasticEncoderLayer(sizes("encoder", key), space.max(key), layer_options(cfg, "encoder"), mixture)

        def decoder_layer() -> ElasticDecoderLayer:
            keys = ("decoder_attention_heads", "decoder_ende_attention_heads")
            return ElasticDecoderLayer(
                tuple(sizes("decoder", key) for key in keys),
                tuple(space.max(key) for key in keys),
                layer_options(cfg, "decoder"),
                mixture,
            )

        spans = space.largest().cross_spans
        encoder = TransformerEncoder(
            cfg,
            src_dict,
            tables[0],
            encoder_dim,
            encoder_dim,
            [encoder_layer() for _ in range(space.max("encoder_layers"))],
            outer_norms(cfg, "encoder", ElasticLayerNorm, encoder_dim),
            num_outputs=max(spans),
        )
        decoder = TransformerDecoder(
            cfg,
            tgt_dict,
            tables[1],
            tables[2],
            decoder_dim,
            decoder_dim,
            [decoder_layer() for _ in range(space.max("decoder_layers"))],
            outer_norms(cfg, "decoder", ElasticLayerNorm, decoder_dim),
            spans,
        )
        return cls(cfg, encoder, decoder, space)

    # --- choosing a subnet -----------------------------------------------------------------------------------------

    def set_active_subnet(self, subnet: Subnet) -> None:
        """Use ``subnet`` from now on.

        Raises:
            InputError: the subnet is not in the search space.
        """
        self.search_space.check(subnet)
        self.active_subnet = subnet
        values = arch_encoding(subnet, self.search_space, str(self.cfg.arch_encoding))
        with torch.inference_mode(False):  # whatever the caller's mode, training may follow
            encoding = torch.tensor(values, dtype=torch.float32, device=self.identity.device)
        self._set_encoder(subnet, encoding)
        self._set_decoder(subnet, encoding)

    def _set_side(self, side: str, subnet: Subnet, encoding: Tensor) -> None:
        """Set what both sides have, once the layers have their sizes: widths, depth, dropout, the routers' input."""
        stack, width = getattr(self, side), getattr(subnet, f"{side}_embed_dim")
        num_layers = getattr(subnet, f"{side}_layers")
        scale, activation_scales = dropout_scales(str(self.cfg.dropout_scaling), subnet, self.search_space, side)
        for layer, activation_scale in zip(stack.layers, activation_scales, strict=False):
            layer.set_arch(encoding, scale)
            layer.activation_dropout_module.p = self.cfg.activation_dropout * activation_scale
        for layer in stack.layers[num_layers:]:
            layer.forget()  # no forward tells it of updates: momentum may move it
        stack.embed_dim, stack.num_active_layers = width, num_layers
        stack.dropout_module.p = self.cfg.dropout * scale
        for norm in (stack.layernorm_embedding, stack.layer_norm):
            if norm is not None:
                norm.set_active_size(width)

    def _set_encoder(self, subnet: Subnet, encoding: Tensor) -> None:
        width = subnet.encoder_embed_dim
        self.encoder.num_outputs = max(subnet.cross_spans)
        for i, layer in enumerate(self.encoder.layers[: subnet.encoder_layers]):
            heads = subnet.encoder_attention_heads[i]
            layer.set_active_sizes(width, subnet.encoder_ffn_embed_dim[i], attention_size(subnet, heads), heads)
        self._set_side("encoder", subnet, encoding)

    def _set_decoder(self, subnet: Subnet, encoding: Tensor) -> None:
        width = subnet.decoder_embed_dim
        self.decoder.cross_spans = subnet.cross_spans
        for i, layer in enumerate(self.decoder.layers[: subnet.decoder_layers]):
            self_heads, cross_heads = subnet.decoder_attention_heads[i], subnet.decoder_ende_attention_heads[i]
            layer.set_active_sizes(
                width,
                subnet.encoder_embed_dim,
                subnet.decoder_ffn_embed_dim[i],
                (attention_size(subnet, self_heads), self_heads),
                (attention_size(subnet, cross_heads), cross_heads),
            )
        self._set_side("decoder", subnet, encoding)

    def describe_active_subnet(self) -> str:
        """One line for logs."""
        ends = {self.search_space.smallest(): "smallest: ", self.search_space.largest(): "largest: "}
        return ends.get(self.active_subnet, "") + self.active_subnet.summary()

    def prepare_for_inference_(self, cfg) -> None:
        """fairseq's hook of its commands and of the hub. Warns under a task that has no ``--subnet``."""
        super().prepare_for_inference_(cfg)
        task = getattr(getattr(cfg, "task", None), "_name", None)
        if task != "translation_mos":
            logger.warning(
                "generating with subnet %s; --task translation_mos has --subnet for others, and translates every "
                "sentence, which --task %s may not without --required-batch-size-multiple 1",
                self.describe_active_subnet(),
                task,
            )

    def sample_subnet(self, *seed_parts: object) -> Subnet:
        """Draw a subnet from a seed (as ``SearchSpace.sample_subnet``), make it active and return it."""
        subnet = self.search_space.sample_subnet(*seed_parts)
        self.set_active_subnet(subnet)
        return subnet

    @torch.no_grad()
    def get_active_subnet(self) -> "TransformerSubnetModel":
        """A static twin with the active subnet's merged weights (copies), in eval mode, on the same device and in the
        same dtype. Its dropout rates are the configured ones: scaling by width is the supernet's."""
        training = self.training
        twin = TransformerSubnetModel.from_subnet(
            self._twin_config(),
            self.active_subnet,
            self.encoder.dictionary,
            self.decoder.dictionary,
            (self.search_space.max("encoder_embed_dim"), self.search_space.max("decoder_embed_dim")),
        )
        twin.to(self.encoder.embed_tokens.weight)
        self.eval()
        try:
            for mine, theirs in ((self.encoder, twin.encoder), (self.decoder, twin.decoder)):
                copy_active(mine, theirs)
        finally:
            self.train(training)
        return twin.eval()

    def _twin_config(self) -> TransformerSubnetConfig:
        """Configuration from which ``transformer_subnet`` builds the active subnet's static twin."""
        shared = [f.name for f in fields(TransformerBaseConfig) if not f.name.startswith("_")]
        options = {name: getattr(self.cfg, name) for name in shared}
        return TransformerSubnetConfig(**options, subnet=self.active_subnet.key)

    def data_parallel(self, process_group, bucket_mb: float = 25) -> SupernetDataParallel:
        """This model for data parallel training; fairseq's ``pytorch_ddp`` and ``legacy_ddp`` become it."""
        return SupernetDataParallel(self, process_group, bucket_mb)

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict, strict=True, model_cfg=None, args=None):
        """As fairseq's; the weights may be from a checkpoint, an average of several, or an EMA.

        Raises:
            InputError: the weights are of another search space, routing or vocabulary; names the differences. Without
                ``strict``, weights that name no search space are taken at their word.
        """
        stored = state_dict.get("identity")
        if stored is not None:
            check_identity(stored, self.search_space, self.cfg)
            state_dict = copy.copy(state_dict)
            state_dict["identity"] = self.identity
        elif strict:
            raise InputError(
                "these weights are not of a transformer_mos supernet: they name no search space; mos-warm-start makes "
                "a supernet of fairseq's transformer"
            )
        for side in ("encoder", "decoder"):
            table, mine = state_dict.get(f"{side}.embed_tokens.weight"), getattr(self, side).embed_tokens.weight
            if table is not None and len(table) != len(mine):
                raise InputError(
                    f"the checkpoint's {side} knows {len(table)} words, this run's dictionary has {len(mine)}: "
                    "use the data folder (its dict.*.txt) of the training"
                )
        return super().load_state_dict(state_dict, strict, model_cfg, args)
