"""Files, locks, signals, cores, URLs and text: what every room needs and no room owns."""
