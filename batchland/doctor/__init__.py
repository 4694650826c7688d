"""Check whether this machine is ready for scoring, and say why not."""
