"""Models in other formats and libraries: ONNX and ``transformers``."""
