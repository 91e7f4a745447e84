"""Configuration: composing conf/ with overrides, explaining it, and trusting what was received.

compose     compose, build, run_command
explain     ConfigError, leaves
own_data    OwnFolders
resume      resumed_overrides
trusted     checked, built_source, parse_yaml
"""

from tradsys.core import endings

if endings.is_command():
    endings.leave_when_stopped()
