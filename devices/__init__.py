"""Kinds of boards that edgekit ships; each file exports KIND, an edgekit.device.kinds.Kind."""
