"""Choosing subnets: latency predictors, and search within budgets.

The algorithms know neither torch nor fairseq; :mod:`mos_fairseq.nas.evaluator`, which does, is imported apart."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "candidates": ["Candidates"],
        "constraints": ["Constraint"],
        "evolution": ["EvolutionOptions", "evolve", "random_search"],
        "features": ["Features"],
        "pareto": ["ParetoOptions", "front", "hypervolume", "pareto_search"],
        "predictor": ["FAMILIES", "LatencyPredictor", "doubts", "fit_predictor", "score"],
    },
)
