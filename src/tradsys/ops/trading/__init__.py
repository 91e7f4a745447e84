"""The trading bot: loop, risk limits, recovery and its journal.

commands    replay, paper, live, status, report
loop        Loop
engine      Engine
risk        Risk
recovery    reconcile
store       TradeJournal
state       State
"""
