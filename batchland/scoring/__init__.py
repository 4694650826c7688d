"""Score images: options, listing, progress, shards, merging, and the engines that do the work."""
