"""Judge one night without labels."""
