"""Whether a runtime failed for want of memory: then the same texts may pass in smaller batches."""

# What the libraries say, in lower case; they have no error class of their own for it, or none that is public.
_SAYINGS = (
    "out of memory",  # CUDA, and PyTorch's allocator
    "failed to allocate memory",  # ONNX Runtime's arena
    "smaller than requested bytes",  # its arena at its limit
    "_status_alloc_failed",  # cuBLAS, cuDNN
    "outofmemory",  # TensorRT
    "bad_alloc",  # C++, on the CPU
    "bad allocation",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether this is a runtime's way of saying that a batch did not fit into the device's memory, or the machine's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return any(saying in said for saying in _SAYINGS)
