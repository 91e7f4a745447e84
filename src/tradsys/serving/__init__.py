"""Bundles and strategies: what backtest and live trading share, without torch and without labels.

bundle           Bundle
strategy         Strategy, Profile, ThresholdRule
session          Session, replay
feeds            Feed, StoredFeed
brokers          Broker, Order, Fill
paper            PaperBroker
contributions    contributions
"""
