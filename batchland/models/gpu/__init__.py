"""Run a model on NVIDIA GPUs: settings, IO binding, runners and JPEG decoding."""
