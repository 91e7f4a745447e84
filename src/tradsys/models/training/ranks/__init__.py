"""Several devices or machines fit one net together.

launcher      run_on_ranks
rendezvous    Rendezvous
all_gather    gathered
"""
