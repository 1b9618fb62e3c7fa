"""Names for the options of searches, all that a command's --help needs."""

INNER_SEARCHES = ("evolution", "nsga2")
QUALITY_PREDICTORS = ("auto", "ridge", "svr", "boosting")
