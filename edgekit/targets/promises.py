"""What an artifact must reach: one threshold a gate, None where nothing is promised.

A target carries its own; a recipe overrides them field by field, under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

OFF = "off"
MIN_IMAGES = 32


@dataclass(frozen=True)
class Promises:
    """Thresholds of the gates, counts in whole numbers and shares as fractions. None: not promised.

    max_lsb: largest difference between the integer simulation and the runtime, in output steps.
    min_float_sqnr_db: what a float file's outputs must keep of the graph's own, in dB.
    max_top1_drop: accuracy (top-1, or mean IoU) the artifact may lose against the float reference.
        proven_drop: demands that the whole interval stays below it, not only the estimate.
    min_sqnr_db: what every output must keep of the float reference's, in dB, where no labels judge the
        answers. min_equal: share of equal numbers instead, for outputs of whole numbers.
    min_agreement: share of evaluation images on which float and artifact answer alike.
    min_pairwise_agreement: the same between every two int8 artifacts of one build.
    max_partitions, max_undelegated, max_transposes: counts, read from the runtime and the file.
    min_int8_share: of operators that compute in int8, read from the file. min_int8_macs_share: of MACs of
        operators with weights; products of two activations are placed where the runtime is fast on them.
    max_size_bytes: of the model file. max_latency_ratio: p50 of the artifact over p50 of its float baseline.
    min_images: fewest evaluation images on which answers are judged. On fewer one answer more or less decides
        by itself (on 32 it is 3 points), and what was found is a remark; None judges on any number.
    remarks: names of thresholds that were switched off: what they ask is found and shown, and not judged.
    """

    max_lsb: int | None = None
    min_float_sqnr_db: float | None = None
    max_top1_drop: float | None = None
    proven_drop: bool = False
    min_sqnr_db: float | None = None
    min_equal: float | None = None
    min_agreement: float | None = None
    min_pairwise_agreement: float | None = None
    max_partitions: int | None = None
    max_undelegated: int | None = None
    max_transposes: int | None = None
    min_int8_share: float | None = None
    min_int8_macs_share: float | None = None
    max_size_bytes: int | None = None
    max_latency_ratio: float | None = None
    min_images: int | None = MIN_IMAGES
    remarks: frozenset[str] = frozenset()

    def overridden(self, asked: Mapping[str, float | str]) -> Promises:
        """These promises with what a recipe asks instead; "off" makes a remark of a threshold."""
        off = {name for name, value in asked.items() if value == OFF}
        given = {name: None if name in off else value for name, value in asked.items()}
        return replace(self, **given, remarks=frozenset(self.remarks - given.keys() | off))  # type: ignore[arg-type]

    def judges(self, *names: str) -> bool | None:
        """Whether any of these thresholds stands: True a gate, False a remark, None neither."""
        if any(getattr(self, name) is not None for name in names):
            return True
        return False if self.remarks & set(names) else None


THRESHOLDS = tuple(field.name for field in fields(Promises) if field.name != "remarks")
