"""Evaluate predictions against labels: figures, confidence intervals, slices, gates, comparisons."""
