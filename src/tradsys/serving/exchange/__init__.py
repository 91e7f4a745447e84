"""Feed and broker of a real exchange through ccxt.

client    Client, Exchange
feed      ExchangeFeed
broker    ExchangeBroker
"""
