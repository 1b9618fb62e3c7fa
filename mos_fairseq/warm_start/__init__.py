"""From a checkpoint of fairseq's own ``transformer`` to a supernet whose largest subnet is that model (BootstrapNAS,
arXiv 2112.10878); from a supernet to one with experts of low rank."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "family": ["MASKED", "SIDES", "check_family_of", "has_narrower_attention", "has_narrower_embeddings"],
        "huggingface": ["read_huggingface"],
        "importance": ["Orders", "importance_orders", "masked_orders", "supernet_orders"],
        "low_rank": ["low_rank_supernet"],
        "masked_data": ["masked_batches"],
        "reorder": ["moves_of", "reordered"],
        "roberta": ["MaskedModel", "check_masked_space", "masked_supernet", "read_roberta"],
        "stock": ["EMBEDDING_FILES", "StockModel", "check_pairs", "check_space", "read_transformer"],
        "supernet": ["supernet_checkpoint", "supernet_from"],
    },
)
