"""`python -m deployments`: make, show or remove what runs the pipeline on a Prefect server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import get_args

from flows import terminal

if __name__ == "__main__":
    terminal.before_imports()

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from pydantic import ValidationError

from cxrmodel.config import PipelineConfig
from cxrmodel.errors import CxrModelError
from cxrmodel.places import is_folder
from cxrmodel.settings import problems_of
from deployments import garbage, local, reconcile
from deployments.automations import automations, every_automation
from deployments.definitions import deployments
from deployments.pools import RecordsBlock, WorkPool
from deployments.target import PoolType, Target, placed
from flows import command_line
from flows.command_line import Parser

PROGRAM = "python -m deployments"
EXIT_BAD_SETTINGS, EXIT_INTERRUPTED = 2, 130


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Create or update the work pool, the deployments and the automations.",
        epilog="Every other flag is one of flows/main.py, such as "
        "--config configs/notebook.yaml or --store.root s3://bucket/cxr: the settings that the "
        "deployments start from. "
        "`python -m deployments gc --help` shows how to clean a store; `python -m deployments ui` "
        "starts a server, a worker and all this on one machine.",
        allow_abbrev=False,
    )
    parser.add_argument("--pool-type", choices=get_args(PoolType), help="what runs a job; needed")
    parser.add_argument("--pool", default="cxr-gpu", help="name of the work pool")
    parser.add_argument(
        "--suffix", default="", help="deploy as train-SUFFIX and so on, beside another version"
    )
    parser.add_argument("--image", help="image of a job, for docker and kubernetes")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="of a job; not a secret"
    )
    parser.add_argument(
        "--volume", action="append", default=[], metavar="SOURCE:TARGET", help="of a docker job"
    )
    parser.add_argument("--outputs-claim", help="volume claim of a Kubernetes job's outputs")
    parser.add_argument("--notify", metavar="TYPE/NAME", help="notification block to tell")
    parser.add_argument("--dry-run", action="store_true", help="print what would change")
    parser.add_argument("--delete", action="store_true", help="remove everything made here")
    return parser


def _target(arguments: argparse.Namespace) -> Target:
    for entry in arguments.env:
        if not entry.partition("=")[0] or "=" not in entry:
            raise ValueError(f"--env {entry}: give it as NAME=VALUE")
    for entry in arguments.volume:
        if not all(entry.partition(":")):
            raise ValueError(f"--volume {entry}: give it as SOURCE:TARGET")
    return Target(
        pool_type=arguments.pool_type,
        pool=arguments.pool,
        suffix=arguments.suffix,
        image=arguments.image,
        env=dict(entry.split("=", 1) for entry in arguments.env),
        volumes=tuple(arguments.volume),
        outputs_claim=arguments.outputs_claim,
        notify=arguments.notify,
    )


def resources(config: PipelineConfig, target: Target) -> list[reconcile.Resource]:
    """Return what a target needs on the server, in the order to make it, but for automations."""
    root = config.store.root
    block = [] if is_folder(root) else [RecordsBlock(root)]
    return [*block, WorkPool(target), *deployments(config, target)]


def removable(config: PipelineConfig, target: Target) -> list[reconcile.Resource]:
    """Return what is removed with a target: of one version beside another, its deployments."""
    if target.suffix:
        return list(deployments(config, target))
    return [*resources(config, target), *every_automation()]


def deploy(arguments: list[str]) -> None:
    """Make the server what the arguments say, and print each change.

    Raises:
        ValueError: An argument does not fit the others, or the server.
    """
    parser = _parser()
    known, settings = parser.parse_known_args(arguments)
    config = command_line.parse(settings, PROGRAM, parser.flags).config
    if known.pool_type is None:
        parser.error(f"--pool-type is needed: one of {', '.join(get_args(PoolType))}")
    target = _target(known)
    config = placed(config, target)
    if not PREFECT_API_URL.value():
        raise ValueError(
            "PREFECT_API_URL is not set: there is no server to deploy to. "
            "Try PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        if known.delete:
            unwanted = removable(config, target)
            _print(reconcile.remove(unwanted, client, dry_run=known.dry_run))
        else:
            wanted = [*resources(config, target), *automations(target, client)]
            _print(reconcile.apply(wanted, client, dry_run=known.dry_run))


def _print(lines: Iterable[object]) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201 - what the command is for


def _until_ctrl_c(lines: Generator[str]) -> None:
    """Print what a command says that only a signal ends: Ctrl-C is how it ends well."""
    try:
        with closing(lines):
            _print(lines)
    except terminal.Stopped as stopped:
        if stopped.code != EXIT_INTERRUPTED:
            raise
        print("stopped")  # noqa: T201 - to a person


def main(arguments: list[str]) -> None:
    """Run the command, and end with a message that says what to do about a failure."""
    try:
        if arguments[:1] == ["gc"]:
            _print(garbage.command(arguments[1:]))
        elif arguments[:1] == ["ui"]:
            _until_ctrl_c(local.run(arguments[1:], deploy))
        else:
            deploy(arguments)
    except ValidationError as error:
        terminal.fail(_explain(error), EXIT_BAD_SETTINGS)
    except (ValueError, FileNotFoundError, CxrModelError) as error:
        terminal.fail(str(error), EXIT_BAD_SETTINGS)
    except PrefectHTTPStatusError as error:
        terminal.fail(f"the server answers {error.response.status_code}: {error.response.text}")
    except httpx.TransportError as error:
        terminal.fail(
            f"the server at {_without_password(PREFECT_API_URL.value())} does not answer: {error}"
        )


def _without_password(url: str | None) -> str:
    scheme, slashes, rest = str(url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def _explain(error: ValidationError) -> str:
    problems = problems_of(error, Target.model_fields)
    return "\n".join(
        f"--{name.replace('_', '-')}: {text}" if name else text for name, text in problems
    )


if __name__ == "__main__":
    with terminal.command("stopped"):
        main(sys.argv[1:])
