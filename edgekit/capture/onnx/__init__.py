"""An ONNX file of another framework -> Graph.

Enters: a path to a float32 or QDQ model (opset 7 to 26). Leaves: a checked Graph of high-level ops in
NCHW, whose values keep the file's tensor names and whose `source` is the file's node name. Arithmetic on
shapes and constants is executed; Quantize/DequantizeLinear pairs become annotations. `prove` holds the graph
against a runtime's answers.

    file            reading and refusing files      importer      the walk over a file's nodes
    registry        the table of importers          builder       what an importer is given
    quantization    Q/DQ pairs                      prove         the graph against a runtime
    saturation      activations folded into Q
    one file a family of operators: activation, convolution, movement, pooling, resize
"""

from edgekit.capture.onnx.file import OnnxFile, read
from edgekit.capture.onnx.importer import import_onnx
from edgekit.capture.onnx.prove import prove
from edgekit.capture.prove import is_quantized

__all__ = ["OnnxFile", "import_onnx", "is_quantized", "prove", "read"]
