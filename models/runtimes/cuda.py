"""Whether there is an NVIDIA device, asked of the driver: a library would print its own failure."""

import ctypes

NAME_BYTES = 256


def cuda_problem() -> str | None:
    """Why there is no CUDA device, or None where there is one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no device"
    return None


def cuda_device() -> str:
    """The first device and its driver, such as "NVIDIA H200, driver 13000"; call it only without a `cuda_problem`."""
    driver = ctypes.CDLL("libcuda.so.1")
    name, version = ctypes.create_string_buffer(NAME_BYTES), ctypes.c_int(0)
    driver.cuDeviceGetName(name, NAME_BYTES, 0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{name.value.decode(errors='replace')}, driver {version.value}"
