"""Draw a sample data set, and run every step of batchland on it once."""
