"""archiver keeps the call recordings of the Kore.ai platform: completely, unaltered, accounted for."""

__version__ = "0.2.0"
