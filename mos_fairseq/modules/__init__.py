"""Building blocks. They know ints and tensors, nothing of search spaces, models or tasks."""

from mos_fairseq.modules.dropout import Dropout
from mos_fairseq.modules.elastic_embedding import ElasticEmbedding
from mos_fairseq.modules.elastic_layer_norm import ElasticLayerNorm
from mos_fairseq.modules.elastic_linear import ElasticLinear
from mos_fairseq.modules.elastic_transformer_layer import ElasticTransformerLayer, MixtureOptions
from mos_fairseq.modules.factored_linear import FactoredLinear
from mos_fairseq.modules.heads import ClassificationHead, MaskedLanguageHead
from mos_fairseq.modules.layer_maps import ElasticLayerMaps, LayerMaps
from mos_fairseq.modules.low_rank import LowRankExperts
from mos_fairseq.modules.mixture import mix_experts
from mos_fairseq.modules.multihead_attention import MultiheadAttention
from mos_fairseq.modules.packed_linear import Linear, PackedWeight
from mos_fairseq.modules.padding import PaddingMemo, learn_together
from mos_fairseq.modules.positional_embedding import PositionalEmbedding
from mos_fairseq.modules.router import ROUTERS, LayerRouter, NeuronRouter, RankRouter
from mos_fairseq.modules.transformer_layer import LayerOptions, TransformerLayer

__all__ = [
    "ClassificationHead",
    "Dropout",
    "ElasticEmbedding",
    "ElasticLayerMaps",
    "ElasticLayerNorm",
    "ElasticLinear",
    "ElasticTransformerLayer",
    "FactoredLinear",
    "LayerMaps",
    "LayerOptions",
    "LayerRouter",
    "Linear",
    "LowRankExperts",
    "MaskedLanguageHead",
    "MixtureOptions",
    "MultiheadAttention",
    "NeuronRouter",
    "PackedWeight",
    "PaddingMemo",
    "PositionalEmbedding",
    "ROUTERS",
    "RankRouter",
    "TransformerLayer",
    "learn_together",
    "mix_experts",
]
