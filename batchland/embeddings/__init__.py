"""What pictures have in common: near-duplicates, look-alikes, and a map, from predictions."""
