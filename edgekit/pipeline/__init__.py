"""A build from its recipe to its report: pipeline.py reads as the list of stages."""
