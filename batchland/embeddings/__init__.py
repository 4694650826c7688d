"""Compare the pictures of predictions: near-duplicates, similar images, a map, and classes added without training."""
