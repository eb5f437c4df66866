"""Figures with intervals: likelihoods, answers and their verdicts, the scoreboard."""
