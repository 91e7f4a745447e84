"""How a command is stopped from outside, before, during and after its work.

early       leave_when_stopped, open_closed_streams, is_command, is_becoming_command
stops       stoppable, exit_code, Terminated, held_back, end_with_parent, end_with_caller
"""
