"""The commands of `scdiff-data`: functions of the package, their arguments from the signatures.

Read `arguments`, `starts`, `work`, `listing`.
"""

from scdiff_data.command.arguments import UsageError
from scdiff_data.command.listing import Command, find_command, print_completion

__all__ = ["Command", "UsageError", "find_command", "print_completion"]
