"""Order books and trades beside bars: records of vendors, clocks, and measures known at each bar's close."""
