"""Checks on what every plugin is: an installed entry point that costs the host nothing until it is used."""

from __future__ import annotations

from automl_tl.plugin_host.discovery import contract_problem, declared_contracts, name_problem
from automl_tl.testing.processes import HEAVY, QUICK_S
from automl_tl.testing.subjects import PluginSubject
from automl_tl.testing.verdicts import Unreachable, require

__all__ = ["PACKAGE_CHECKS"]


def declares_the_contract(subject: PluginSubject) -> None:
    """Its distribution says, in its metadata, that it is written for this contract version."""
    plugin, dist = subject.entry.plugin, subject.entry.point.dist
    problem = plugin.problem if dist is None else contract_problem(declared_contracts(dist.entry_points), plugin.distribution)
    require(problem is None, str(problem))


def has_a_sound_name(subject: PluginSubject) -> None:
    """Its name is made of lower-case letters, digits and underscores."""
    problem = name_problem(subject.entry.plugin.name)
    require(problem is None, str(problem))


def has_a_name_of_its_own(subject: PluginSubject) -> None:
    """No other installed distribution offers the same name."""
    name = subject.entry.plugin.name
    require(not subject.rivals, f"{name!r} is also offered by {', '.join(subject.rivals)}; rename the entry point")


def imports_quickly(subject: PluginSubject) -> None:
    """Its module is imported in less than 0.2 seconds, in a process that has imported the contracts."""
    probe = subject.import_probe
    if probe.error and probe.seconds < QUICK_S:
        raise Unreachable("loads", probe.error)
    text = f"importing {subject.entry.point.module} took {probe.seconds:.2f} s, allowed are {QUICK_S} s"
    require(probe.seconds < QUICK_S, f"{text}; every `tl auto` pays it: import what is slow inside the function that needs it")


def imports_without_torch(subject: PluginSubject) -> None:
    """Importing its module loads neither torch nor anything that stands on torch."""
    probe = subject.import_probe
    text = f"importing {subject.entry.point.module} also loads {', '.join(probe.heavy)}"
    require(not probe.heavy, f"{text}; of {', '.join(HEAVY)} none may be imported at the top of a module")


def imports_silently(subject: PluginSubject) -> None:
    """Importing its module prints nothing: stdout is the result of a command."""
    printed = subject.import_probe.printed
    require(not printed, f"it printed {printed!r} when it was imported")


def loads(subject: PluginSubject) -> None:
    """The entry point gives what its group promises."""
    problem = subject.loaded.plugin.problem
    require(problem is None, f"{subject.entry.plugin.entry_point}: {problem}")


PACKAGE_CHECKS = (
    declares_the_contract,
    has_a_sound_name,
    has_a_name_of_its_own,
    imports_quickly,
    imports_without_torch,
    imports_silently,
    loads,
)
