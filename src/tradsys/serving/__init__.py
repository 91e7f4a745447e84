"""Bundles and strategies, shared by backtest and live trading; without torch and labels.

bundle           Bundle
strategy         Strategy, Profile, ThresholdRule
session          Session, replay
feeds            Feed, StoredFeed
brokers          Broker, Order, Fill
paper            PaperBroker
contributions    contributions
"""
