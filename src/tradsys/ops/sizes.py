"""Bytes in words."""


def size(n_bytes: float) -> str:
    """In powers of 1024, as `free -h`, Docker and RunPod's pages count: 512,000,000 is `488 MB`."""
    value = float(n_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.1f} {unit}" if unit == "GB" and value < 10 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TB" if value < 10 else f"{value:.0f} TB"
