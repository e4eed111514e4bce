"""Names of the metrics that several stages report. Imports no torch."""

__all__ = ["PAIR_LOGPS", "PAIR_REWARDS"]

#: of a chosen and a rejected answer
PAIR_REWARDS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
)
#: log-probabilities of the answers, and the mean negative log-likelihood of the chosen one's tokens
PAIR_LOGPS = ("logps/chosen", "logps/rejected", "nll_loss")
