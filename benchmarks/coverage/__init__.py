"""Coverage studies, run as a script; not the package `coverage`, which numba asks for.

Scripts in `benchmarks` have this folder on their path under that name. Refusing the import tells numba that the
package is absent.
"""

raise ImportError("benchmarks/coverage holds scripts: python benchmarks/coverage/run.py")
