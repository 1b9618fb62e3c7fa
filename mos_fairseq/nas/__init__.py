"""Choosing subnets: latency predictors, and search within budgets.

The algorithms know neither torch nor fairseq; :mod:`mos_fairseq.nas.evaluator`, which does, is imported apart."""

from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.constraints import Constraint
from mos_fairseq.nas.evolution import EvolutionOptions, evolve, random_search
from mos_fairseq.nas.features import Features
from mos_fairseq.nas.pareto import ParetoOptions, front, hypervolume, pareto_search
from mos_fairseq.nas.predictor import FAMILIES, LatencyPredictor, fit_predictor, score

__all__ = [
    "FAMILIES",
    "Candidates",
    "Constraint",
    "EvolutionOptions",
    "Features",
    "LatencyPredictor",
    "ParetoOptions",
    "evolve",
    "fit_predictor",
    "front",
    "hypervolume",
    "pareto_search",
    "random_search",
    "score",
]
