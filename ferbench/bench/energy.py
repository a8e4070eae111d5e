"""Energy of an NVIDIA GPU, by NVML where its driver is there."""

import ctypes
from contextlib import suppress


class Meter:
    """Millijoules that the first GPU has used since the driver was loaded; None where nobody counts them.

    The counter is refreshed every 20 to 100 ms: measure over seconds.
    """

    def __init__(self) -> None:
        self.library: ctypes.CDLL | None = None
        self.handle = ctypes.c_void_p()
        with suppress(OSError):
            library = ctypes.CDLL("libnvidia-ml.so.1")
            if library.nvmlInit_v2() == 0 and library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.handle)) == 0:
                self.library = library

    def millijoules(self) -> int | None:
        if self.library is None:
            return None
        value = ctypes.c_ulonglong()
        done = self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle, ctypes.byref(value))
        return value.value if done == 0 else None
