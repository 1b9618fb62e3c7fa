"""``decoder_only``: a causal language model, fairseq's ``transformer_lm``."""

from mos_fairseq.search_space.families.stacks import transformer_stack
from mos_fairseq.search_space.family import Family

DECODER_ONLY = Family(
    "decoder_only",
    (
        transformer_stack(
            "decoder",
            "dec",
            tokens="target",
            causal=True,
            # as in fairseq's transformer_lm_gpt and _big: post-norm training is not stable
            fixed={"decoder_normalize_before": True},
        ),
    ),
    output="decoder",
    workloads=("generate", "forward"),
)
