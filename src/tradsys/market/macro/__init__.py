"""Daily and released series joined to bars point in time."""
