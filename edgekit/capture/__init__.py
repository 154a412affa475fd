"""nn.Module -> Graph, through torch.export with no decompositions.

Enters: a module in eval mode and one example an input, (1, C, H, W) for an image. Leaves: a Graph of
high-level ops. Every ATen op has one importer in torch/, in the file of its family; an op whose operands are
all constants is simply executed, so masks and position tables arrive as constants. In-place ops are read as
plain ones; when a view of the overwritten tensor is read later, the export is functionalised first.
"""

from edgekit.capture.prove import find_batchable, relative_error
from edgekit.capture.torch.export import capture, import_program, parameters

__all__ = ["capture", "find_batchable", "import_program", "parameters", "relative_error"]
