"""LiteRT with XNNPACK: .tflite files."""
