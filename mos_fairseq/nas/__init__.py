"""Search for subnets within budgets. The algorithms import neither torch nor fairseq."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "asng": ["AsngOptions", "CategoricalASNG", "asng_search"],
        "candidates": ["Candidates"],
        "constraints": ["Constraint"],
        "evolution": ["EvolutionOptions", "evolve", "random_search"],
        "linas": ["LinasOptions", "linas_search"],
        "pareto": ["ParetoOptions", "front", "hypervolume", "pareto_search"],
        "surrogate": ["QualityPredictor"],
    },
)
