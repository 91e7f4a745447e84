"""Fits of one net on several devices or machines.

launcher      run_on_ranks
rendezvous    Rendezvous
all_gather    gathered
"""
