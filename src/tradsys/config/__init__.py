"""Configuration: composing conf/ with overrides, explaining it, and trusting what was received.

compose     compose, build, run_command
explain     ConfigError, leaves
own_data    OwnFolders
resume      resumed_overrides
trusted     checked, built_source, parse_yaml
"""

import gc

from tradsys.core.endings import early

if early.is_command():
    early.open_closed_streams()
    early.leave_when_stopped()
    # a command starts with millions of objects that stay; looking for garbage among them took a tenth of its start
    gc.set_threshold(20_000, 10, 10)
