"""Choosing subnets: latency predictors."""

from mos_fairseq.nas.predictor import FAMILIES, Features, LatencyPredictor, fit_predictor, score

__all__ = ["FAMILIES", "Features", "LatencyPredictor", "fit_predictor", "score"]
