"""Operations: the daily pipeline, the machine a run needs, and the trading bot.

notify    Notifier
"""
