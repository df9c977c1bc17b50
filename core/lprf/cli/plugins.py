"""`lprf plugins`: who is installed, and what is wrong with whom."""

from __future__ import annotations

import argparse

from lprf.cli.common import add_plugin_argument, plugins
from lprf.errors import PluginError
from lprf.text import columns

EXAMPLES = """\
Every installed distribution with an entry point in the group `lprf` is a plugin. One that is broken is listed
with the reason and takes nothing else down; the exit code is then 1.

Examples:
  lprf plugins
  lprf plugins --plugin my_detector.py
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plugin_argument(parser)


def run(args: argparse.Namespace) -> int:
    found = plugins(args.plugin)
    rows = [["PLUGIN", "DISTRIBUTION", "VERSION", "STATE"]]
    for name in found.names():
        claims = [(claim.distribution, claim.version) for claim in found.entries.get(name, [])]
        try:
            plugin = found.load(name)
        except PluginError as error:
            for distribution, version in claims:
                rows.append([name, distribution, version, f"BROKEN: {error}"])
            continue
        parts = [f"{len(plugin.components)} component{'' if len(plugin.components) == 1 else 's'}"]
        if plugin.recipes is not None:
            parts.append(f"recipes in {plugin.recipes}")
        rows.append([name, plugin.distribution, plugin.version, "ok: " + ", ".join(parts)])
    print(columns(rows))
    return 1 if found.failures else 0
