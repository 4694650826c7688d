"""Functions that all other packages use: files, locks, signals, cores, URLs and text."""
