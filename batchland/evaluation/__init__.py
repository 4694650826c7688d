"""From predictions and labels: figures, intervals, slices, gates, comparisons."""
