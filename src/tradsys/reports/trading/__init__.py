"""The page of a trading bot.

page    write_page
"""
