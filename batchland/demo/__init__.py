"""The sample set, and everything that batchland does, run on it once."""
