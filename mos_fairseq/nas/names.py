"""Names that options of searches take: a command's --help needs no more than these."""

INNER_SEARCHES = ("evolution", "nsga2")
QUALITY_PREDICTORS = ("auto", "ridge", "svr", "boosting")
