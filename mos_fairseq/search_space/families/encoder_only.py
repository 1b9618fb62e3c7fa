"""``encoder_only``: a masked language model, fairseq's ``roberta``, and MoS-BERT's supernets of it (arXiv 2306.04845).

Layers are as wide as the embeddings; or all have another width, with one map into them and one out (Electra,
arXiv 2003.10555); or each has its own width, with maps around each (SuperShaper, arXiv 2110.04711).
"""

from dataclasses import replace

from mos_fairseq.search_space.families.stacks import transformer_stack
from mos_fairseq.search_space.family import Dimension, Family, ProjectionHead

_PLAIN = transformer_stack(
    "encoder",
    "enc",
    positions="max_positions",
    fixed={  # as in fairseq's roberta
        "encoder_learned_pos": True,
        "layernorm_embedding": True,
        "no_scale_embedding": True,
        "no_token_positional_embeddings": False,
    },
)
_FEED_FORWARD, (_ATTENTION,) = _PLAIN.feed_forward, _PLAIN.attentions

ENCODER_ONLY = Family(
    "encoder_only",
    (
        replace(
            _PLAIN,
            blocks=(
                replace(
                    _FEED_FORWARD,
                    size=replace(_FEED_FORWARD.size, optional=True),
                    ratio=Dimension("encoder_ffn_ratio", "ffn", optional=True),
                ),
                replace(_ATTENTION, within_width=True),
            ),
            hidden=Dimension("encoder_hidden_dim", optional=True),
            bottleneck=Dimension("encoder_bottleneck_dim", "width", optional=True),
        ),
    ),
    output="encoder",
    workloads=("features", "forward"),  # a classifier predicts no words
    splits_width=True,
    head=ProjectionHead(),
    own_output=("untie_weights_roberta", True),
)
