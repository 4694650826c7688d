"""Predictions and labels in; figures, intervals, slices, gates and comparisons out."""
