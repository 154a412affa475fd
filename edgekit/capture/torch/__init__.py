"""torch.export -> Graph: one importer an ATen op."""
