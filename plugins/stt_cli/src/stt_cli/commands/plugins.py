"""``stt plugins``: what is installed, what became of it, whether it is right, and how to begin one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stt_cli.options import json_option
from stt_cli.scaffold import KINDS, write_plugin
from stt_core import PluginState, STTNode, generate_seed, load_plugins
from stt_core.errors import ConfigError, STTError
from stt_core.interfaces import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stt_cli.context import Context
    from stt_core import PluginInfo


def _traceback_option() -> click.Option:
    return click.Option(
        ["-v", "--verbose", "with_traceback"], is_flag=True, help="Show the traceback of what failed as well."
    )


@click.group()
def plugins() -> None:
    """Show what is installed, check a plugin, or begin one."""


@plugins.command("list", params=[json_option()])
@click.pass_obj
def list_plugins(context: Context) -> None:
    """List the plugins: where each comes from, its state, and what it offers."""
    found = _installed(context)
    rows = [(info.name, *_name_and_version(info), info.state.value) for info in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for info, row in zip(found, rows, strict=True):
        columns = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        context.report(
            "plugin",
            f"{columns}  {_first_line(info.reason) or ', '.join(info.offers)}".rstrip(),
            **_fields(info),
        )


@plugins.command("why", params=[_traceback_option(), json_option()])
@click.argument("name")
@click.pass_obj
def why(context: Context, name: str, *, with_traceback: bool) -> None:
    """Explain what became of the plugin NAME; the status is 0 if it is active."""
    installed = _installed(context)
    found = [info for info in installed if info.name == name]
    if not found:
        names = ", ".join(sorted({info.name for info in installed}))
        _report(
            context,
            "plugin",
            f"{name} is not found: no installed distribution has an entry point of this name in the group stt.v1\n"
            f"  there are: {names}",
            {"name": name, "state": "missing"},
        )
    for info in found:
        distribution, version = _name_and_version(info)
        lines = [
            f"{name} is {info.state.value}" + (f": {info.reason}" if info.reason else ""),
            f"  entry point   {info.source}",
            f"  distribution  {distribution} {version}".rstrip(),
            f"  hooks         {', '.join(info.hooks) or 'not known'}",
            f"  offers        {', '.join(info.offers) or 'nothing'}",
        ]
        fields = _fields(info)
        if with_traceback:
            lines += info.traceback.splitlines()
            fields["traceback"] = info.traceback
        _report(context, "plugin", "\n".join(lines), fields)
    if not found or any(info.state is not PluginState.ACTIVE for info in found):
        raise SystemExit(ExitStatus.FAILED)


@plugins.command("validate", params=[_traceback_option(), json_option()])
@click.argument("target", metavar="NAME|PATH")
@click.pass_obj
def validate_plugin(context: Context, target: str, *, with_traceback: bool) -> None:
    """Load one plugin alone and check all that needs no network; the status is 0 if nothing is wrong.

    It is an installed one by its name, or the folder of a distribution, or the file of a plugin module.
    """
    from stt_cli.validation import CheckState, validate  # noqa: PLC0415  the other commands do without it

    checks = validate(target)
    for check in checks:
        text = f"{check.state.value:<8} {check.plugin}: {check.name}" + (f": {check.detail}" if check.detail else "")
        fields = {
            "plugin": check.plugin,
            "check": check.name,
            "state": check.state.value,
            "detail": check.detail,
        }
        if with_traceback:
            text += f"\n{check.traceback}"
            fields["traceback"] = check.traceback
        _report(context, "check", text, fields)
    if any(check.state is CheckState.FAILED for check in checks):
        raise SystemExit(ExitStatus.FAILED)


@plugins.command("new", params=[json_option()])
@click.argument("kind", type=click.Choice(list(KINDS)), metavar="KIND")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="The folder in which that of the plugin is made; the current one unless given.",
)
@click.pass_obj
def new_plugin(context: Context, kind: str, name: str, out: Path) -> None:
    """Write the distribution of a plugin: code, tests that pass, a README.

    KIND is transport, storage, crypto-suite, congestion-controller, frame-type, endpoint or command. NAME is that of
    the distribution, such as acme-clock. Nothing that is there is overwritten.
    """
    try:
        folder = write_plugin(kind, name, out)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except FileExistsError:
        raise click.ClickException(f"{out / name} is there already, and is kept") from None
    except OSError as error:
        raise click.ClickException(f"{out / name} cannot be written: {error.strerror}") from None
    context.report("created", f"wrote {folder}; its README says how to go on", kind=kind, name=name, path=str(folder))


def _report(context: Context, event: str, text: str, fields: Mapping[str, str | list[str]]) -> None:
    """Report a result whose text has several lines, of which JSON is one."""
    for line in text.splitlines()[: 1 if context.json else None]:
        context.report(event, line, **fields)


def _installed(context: Context) -> Sequence[PluginInfo]:
    """Return what became of the plugins in a node, which is made and never started."""
    try:
        return STTNode(node_seed=generate_seed(), shared_seed=generate_seed()).plugins
    except STTError as error:
        context.note(f"stt: no node can be made with these plugins: {error}")
        return load_plugins().plugins


def _name_and_version(info: PluginInfo) -> tuple[str, str]:
    name, _, version = (info.distribution or "").rpartition(" ")
    return name, version


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _fields(info: PluginInfo) -> dict[str, str | list[str]]:
    distribution, version = _name_and_version(info)
    return {
        "name": info.name,
        "version": version,
        "distribution": distribution,
        "source": info.source,
        "state": info.state.value,
        "reason": info.reason,
        "hooks": list(info.hooks),
        "offers": info.offers,
    }
