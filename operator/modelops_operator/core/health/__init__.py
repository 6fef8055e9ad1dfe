"""From the pods' histograms to a verdict: statistics, windows, evaluation. Pure."""
