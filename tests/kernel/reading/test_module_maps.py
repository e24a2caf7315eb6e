"""Reading a module's own maps."""

import struct

from chainbench_agent.kernel.reading.module_maps import cpu_records


def test_records_of_cpus():
    """The kernel pads the record of each CPU to words; the padding is cut off."""
    raw = struct.pack("=QI4xQI4x", 1, 2, 3, 4)

    assert cpu_records(raw, 12) == {
        (0).to_bytes(4, "little"): struct.pack("=QI", 1, 2),
        (1).to_bytes(4, "little"): struct.pack("=QI", 3, 4),
    }
