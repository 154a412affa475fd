"""ONNX Runtime, CPU: .onnx files."""
