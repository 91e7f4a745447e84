"""What a command shows while it works.

stages    is_quiet, is_watched, stage, counted, Pace, total
bars      bar
"""
