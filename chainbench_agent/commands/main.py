"""Defines the command line.  Each command imports what only it needs."""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from chainbench_agent.errors import AgentError
from chainbench_agent.settings import DEFAULT_CONFIG, Settings, load_settings
from chainbench_agent.settings.environment_variables import ENV_PREFIX

Command = TypeVar("Command", bound=Callable[..., Any])


class Commands(click.Group):
    """A group that prints an AgentError as its sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AgentError as error:
            raise click.ClickException(str(error)) from None


class NotCompared(click.ClickException):
    """A comparison that could not be made: a gate must not take it for a pass, nor for a regression."""

    exit_code = 2


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="chainbench-agent")
def main() -> None:
    """Kernel-level evidence for benchmarks: why is the optimised variant faster?"""


def settings_options(command: Command) -> Command:
    """Add an option for each setting, and --config.  Values stay text: settings validates them."""
    for name, setting in reversed(Settings.model_fields.items()):
        default = ",".join(setting.default) if isinstance(setting.default, tuple) else setting.default
        shown = f"  [default: {default}]" if default not in (None, "") and setting.default_factory is None else ""
        flag = name.replace("_", "-")
        if setting.annotation is bool:
            option = click.option(f"--{flag}/--no-{flag}", default=None, help=setting.description)
        else:
            option = click.option(f"--{flag}", metavar="…", help=f"{setting.description}{shown}")
        command = option(command)
    config_help = f"The configuration file, in TOML; {DEFAULT_CONFIG} is read if it exists."
    return click.option("--config", metavar="FILE", help=config_help)(command)


def _header_cache(given: Path | None) -> Path:
    """The directory that an agent would use: as given, or from the environment, or from the file."""
    return load_settings(header_cache=given).header_cache


@main.command(epilog=f"The environment sets the same: {ENV_PREFIX}PORT is --port; a key of the file is `port`.")
@settings_options
def serve(config: str | None, **given: str | bool | None) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C."""
    from chainbench_agent.server import gunicorn_server

    gunicorn_server.serve(load_settings(config, **given), reload=lambda: load_settings(config, **given))


@main.command()
def demo() -> None:
    """Measure a small workload, slow and fast, and show both evidences side by side."""
    from chainbench_agent.commands.demo import run_demo

    click.echo(run_demo())


@main.command(name="compare")
@click.argument("baseline")
@click.argument("optimized")
@click.option(
    "--url", default="http://127.0.0.1:9090", envvar="CHAINBENCH_URL", help="Address of the agent.", show_default=True
)
@click.option("--token-file", type=click.Path(path_type=Path), help="Has the agent's token.")
@click.option("--format", default="text", metavar="NAME", help="One of the formats named below.  [default: text]")
@click.option("--fail-if", default="slower", metavar="slower:N%", help="What a regression is.  [default: slower]")
@click.option("--require-conclusive", is_flag=True, help="Exit with 3 when nothing is claimed.")
@click.option("--allow-different", is_flag=True, help="Compare although conditions differ, such as the kernel.")
@click.option("--limit", type=click.IntRange(1, 100), default=100, help="The newest so many of each side's labels.")
@click.option("--since", default="", metavar="TIME", help="Only runs that labels select and that started since then.")
def compare_(url: str, token_file: Path | None, **asked: Any) -> None:
    """Say whether OPTIMIZED is faster than BASELINE, by how much, and why.

    A side is the id of a stored run, or labels that select many: variant:naive,commit:abc.

    Formats: text, markdown, json, csv, github, junit, bmf, gha-benchmark, chainbench.

    Exits with 0 when there is no regression, 1 when OPTIMIZED is certainly slower than --fail-if allows,
    2 when nothing could be compared, and 3 when --require-conclusive is given and nothing is claimed.
    """
    from chainbench_agent.client import Agent, ClientError
    from chainbench_agent.commands.compare import Asked, run_compare

    try:
        token = token_file.read_text(encoding="utf-8").strip() if token_file else None
        agent = Agent(url, token=token)
    except OSError as error:
        raise NotCompared(f"cannot read {token_file}: {error.strerror}") from None
    except ValueError as error:  # of the URL
        raise NotCompared(str(error)) from None
    try:
        text, code = run_compare(Asked(**asked), agent)
    except (AgentError, ClientError) as error:
        raise NotCompared(str(error)) from None
    click.echo(text, nl=False)
    raise SystemExit(code)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--header-cache",
    type=click.Path(path_type=Path),
    help="Directory of cached headers and objects.",
)
def doctor(*, as_json: bool, header_cache: Path | None) -> None:
    """Say what this machine offers, which modules work from which sources, and what to do about the rest.

    Exits with 0 when every module works.
    """
    from chainbench_agent.commands.doctor import examine, render
    from chainbench_agent.probes import CATALOG

    examination = examine(CATALOG, _header_cache(header_cache))
    click.echo(json.dumps(examination.as_json(), indent=2) if as_json else render(examination))
    raise SystemExit(0 if examination.healthy else 1)


@main.group()
def probes() -> None:
    """The eBPF programs of the modules."""


@probes.command()
@click.argument("modules", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--header-cache",
    type=click.Path(path_type=Path),
    help="Directory of cached headers and objects.",
)
def check(modules: tuple[str, ...], *, as_json: bool, header_cache: Path | None) -> None:
    """Compile and load MODULES, by default all, and attach nothing; say how large each program is.

    Exits with 1 when one does not compile, or no program of a hook loads.
    """
    from chainbench_agent.commands.probes_check import check, render
    from chainbench_agent.kernel.preflight import needed_checks
    from chainbench_agent.probes import CATALOG

    unknown = set(modules) - {module.name for module in CATALOG}
    if unknown:
        raise AgentError(
            f"there is no module {', '.join(sorted(unknown))}; there are {', '.join(m.name for m in CATALOG)}"
        )
    for needed in needed_checks():
        if not needed.ok:  # without it clang's words would be about something else
            raise AgentError(f"{needed.name}: {needed.found}; {needed.remedy}")
    chosen = [module for module in CATALOG if not modules or module.name in modules]
    found = check(chosen, _header_cache(header_cache))
    click.echo(json.dumps(found.as_json(), indent=2) if as_json else render(found))
    raise SystemExit(0 if found.ok else 1)


@probes.command()
@click.argument("names", nargs=-1)
@click.option("--header-cache", type=click.Path(path_type=Path), help="Where header trees made from BTF are stored.")
def show(names: tuple[str, ...], *, header_cache: Path | None) -> None:
    """Print the C text that the agent compiles on this machine, generated parts included.

    NAMES are modules and options, as for `serve --probes`; by default those that the agent is configured with.
    """
    from chainbench_agent.commands.probes_show import show

    click.echo(show(load_settings(header_cache=header_cache, probes=",".join(names) or None)))


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def header_tree(directory: Path) -> None:
    """Write kernel headers for any BCC program to DIRECTORY, from this kernel's BTF.

    Use it with: BCC_KERNEL_SOURCE=DIRECTORY runqlat-bpfcc
    """
    from chainbench_agent.headers.btf import Btf
    from chainbench_agent.headers.header_tree import kernel_config, write_header_tree

    if directory.is_dir() and any(directory.iterdir()):
        raise AgentError(f"{directory} is not empty; name a directory that is, or that does not exist yet")
    try:
        structs = write_header_tree(directory, Btf.load(), kernel_config(), None, os.uname().release)
    except OSError as error:
        raise AgentError(f"cannot write {directory}: {error.strerror}") from None
    click.echo(f"{len(structs)} structs written; use it with: BCC_KERNEL_SOURCE={directory.absolute()}")


@main.command()
def metrics() -> None:
    """Print the table of all metrics, in Markdown."""
    from chainbench_agent.export.markdown import metrics_table
    from chainbench_agent.probes import CATALOG

    click.echo(metrics_table(CATALOG))
