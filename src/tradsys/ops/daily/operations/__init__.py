"""What keeps the daily pipeline running by itself: timers, due sessions, preflight, health, retention, notices."""
