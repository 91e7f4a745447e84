"""Scheduled operation of the daily pipeline: timers, preflight, health, retention, notices."""
