"""Smaller networks: channels removed where they cost most and say least."""
