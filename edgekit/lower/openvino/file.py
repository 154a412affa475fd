"""An ov.Model in, the bytes of its .xml and .bin out: the same bytes in every process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgekit.lower.openvino.runtime import openvino


def pack(model: Any) -> dict[str, bytes]:
    """model.xml and model.bin. The serializer writes to paths only, and none of them enters the file."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino().serialize(model, str(xml), str(weights))
        return {"model.xml": xml.read_bytes(), "model.bin": weights.read_bytes()}
