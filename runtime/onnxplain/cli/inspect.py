"""``onnxplain inspect``: what is in a model and whether it can be explained, before anything is converted."""
