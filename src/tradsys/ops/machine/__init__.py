"""What the machine offers and what a run needs of it.

preflight          look, check
cgroups            read_container
accelerator        read_accelerator
requirements       need_of
recommendations    choices
filesystem         read_volume
"""
