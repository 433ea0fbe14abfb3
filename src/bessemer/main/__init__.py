"""The composition root: the only room that reads settings, builds objects and knows every other.

`main` is the console script. Everything heavy is imported inside the verb that needs it, so that ``--help`` is quick.
"""

from __future__ import annotations

from pathlib import Path

from bessemer.cli.verbs import (
    AgentOptions,
    BackupOptions,
    CheckOptions,
    CopyOptions,
    DemoOptions,
    DisksOptions,
    DoctorOptions,
    Document,
    KeyOptions,
    RestoreOptions,
    ServerOptions,
    SimulateOptions,
    Told,
    UpOptions,
    Verbs,
)


def main() -> None:
    """Run the command line; exits with its status."""
    from bessemer.cli import run

    run(
        Verbs(
            up=_up,
            down=_down,
            server=_server,
            agent=_agent,
            demo=_demo,
            doctor=_doctor,
            disks=_disks,
            kubeconfig=_kubeconfig,
            keys=_keys,
            check=_check,
            copy=_copy,
            backup=_backup,
            restore=_restore,
            simulate=_simulate,
        )
    )


def _up(options: UpOptions) -> int:
    from bessemer.main.up import up

    return up(options)


def _down(state: Path | None) -> int:
    from bessemer.main.down import down

    return down(state)


def _server(options: ServerOptions) -> int:
    from bessemer.main.server import serve_parts

    return serve_parts(options)


def _agent(options: AgentOptions) -> int:
    from bessemer.main.agent import run_agent

    return run_agent(options)


def _demo(options: DemoOptions) -> int:
    from bessemer.main.demo import demo

    return demo(options)


def _disks(options: DisksOptions) -> int:
    from bessemer.main.disks import disks

    return disks(options)


def _doctor(options: DoctorOptions) -> int:
    from bessemer.main.doctor import doctor

    return doctor(options)


def _keys(options: KeyOptions) -> int:
    from bessemer.main.keys import keys

    return keys(options)


def _check(options: CheckOptions) -> int:
    from bessemer.main.keeping import check

    return check(options)


def _copy(options: CopyOptions) -> int:
    from bessemer.main.keeping import copy

    return copy(options)


def _backup(options: BackupOptions) -> int:
    from bessemer.main.backups import backup

    return backup(options)


def _restore(options: RestoreOptions) -> int:
    from bessemer.main.restoring import restore

    return restore(options)


def _simulate(options: SimulateOptions, told: Told) -> Document:
    from bessemer.main.simulate import simulate

    return simulate(options, told)


def _kubeconfig(state: Path | None) -> Path:
    from bessemer.main.settings import Paths, state_directory

    return Paths(state_directory(state)).kubeconfig
