"""Operations: the daily pipeline, checks of the machine, trackers, notices and the trading bot.

notify    Notifier
"""
