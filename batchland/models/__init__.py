"""ONNX classifiers: the model card, sessions, devices, and models from elsewhere."""
