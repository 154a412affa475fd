"""What the Edge TPU compiler will take."""
