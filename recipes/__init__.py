"""Recipes that ship with edgekit, one TOML each; `edgekit build NAME` starts from the one of that name."""
