"""The commands of `scdiff-data`: functions of the package, their arguments from the signatures.

Read `mistakes`, `typed`, `arguments`, `starts`, `work`, `listing`.
"""

from scdiff_data.command.listing import Command, find_command, print_completion
from scdiff_data.command.mistakes import UsageError

__all__ = ["Command", "UsageError", "find_command", "print_completion"]
