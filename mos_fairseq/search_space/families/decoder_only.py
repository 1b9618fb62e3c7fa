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
            # as fairseq's transformer_lm_gpt and _big: training is not stable without
            fixed={"decoder_normalize_before": True},
        ),
    ),
    output="decoder",
    workloads=("generate", "forward"),
)
