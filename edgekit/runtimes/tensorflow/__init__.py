"""TensorFlow's own interpreter, as a second opinion."""
