"""Quality of models on a set: subnets with inherited weights, and models trained alone."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "data": ["dataset_impl", "first_folder", "subset_files"],
        "evaluator": ["ModelEvaluator", "SubnetEvaluator"],
        "judge": ["Judge"],
        "options": ["OBJECTIVES", "EvaluationOptions"],
        "scoring": ["TEXT_METRICS", "TOKENIZERS"],
    },
)
