"""What a model costs: counted from its shapes (`static`)."""
