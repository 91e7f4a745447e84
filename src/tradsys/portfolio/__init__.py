"""Simulated portfolios: the one place that delays execution and charges costs.

simulator           simulate
costs               Costs
ledger              Ledger
fills               fills_at_open
book                Book
book_simulator      BookLedger, simulate_book
vectorbt_adapter    simulate_many
capacity            capacity
"""
