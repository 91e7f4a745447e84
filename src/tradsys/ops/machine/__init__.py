"""Checks what the machine offers against what a run needs.

preflight          read_machine, check
cgroups            read_container
accelerator        read_accelerator
requirements       estimate_of
recommendations    recommend
filesystem         read_volume
"""
