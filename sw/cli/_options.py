"""Options whose defaults are no values."""

from typing import Any

import click


class Derived(click.Option):
    """An option whose default follows from something else.

    Its `show_default` says from what, and is shown as the defaults of all other options are.
    """

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What stands in brackets behind the help."""
        extra = super().get_help_extra(ctx)
        extra["default"] = str(self.show_default)
        return extra
