"""Order books and trades: vendors' records, clock correction, and measures at each bar's close."""
