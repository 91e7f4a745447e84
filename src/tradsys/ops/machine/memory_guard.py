"""Refuses containers that are too small to import torch; train and tune import it first.

Without it the kernel's out-of-memory killer ends the process during the import, with exit code 137 and no message.
"""

import sys

from tradsys.core.errors import TradsysError
from tradsys.ops.machine.cgroups import Container, read_container, size

# least memory of complete runs with a net (see `requirements`), which is imported before a run's own estimate is
# checked; and the address space that the imports alone map
LEAST_BYTES, LEAST_ADDRESS_SPACE = 0.77e9, 2.2e9


def refuse_tiny(container: Container) -> None:
    """Raises TradsysError where no training can end, whatever its data."""
    if container.memory.value < LEAST_BYTES:
        raise TradsysError(
            f"memory: the container may use {size(container.memory.value)} ({container.memory.source}) although the "
            f"host shows {size(container.host_memory)}; a run needs {size(LEAST_BYTES)} before its first bar; rent a "
            "pod with 2 GB or more (on RunPod one with a GPU; a pod started with 0 GPUs has 488 MB)"
        )
    if container.address_space and container.address_space.value < LEAST_ADDRESS_SPACE:
        raise TradsysError(
            f"memory: {container.address_space.source} allows {size(container.address_space.value)} of address space; "
            f"the libraries map {size(LEAST_ADDRESS_SPACE)}; lift it with `ulimit -v unlimited`"
        )


def enter() -> Container:
    """The container's limits.

    One line on standard error and exit code 2 where it is too small.
    """
    container = read_container()
    try:
        refuse_tiny(container)
    except TradsysError as error:
        from rich.console import Console  # noqa: PLC0415 - a twelfth of what --help takes

        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False, style="red")
        sys.exit(2)
    return container


CONTAINER = enter()
