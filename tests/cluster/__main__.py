"""`python -m cluster up | down | env | build | image`: see README.md beside this file."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from cluster import binaries, docker, dockerd, images, kind
from cluster.docker import Mode
from cluster.errors import CommandError, UnavailableError
from cluster.versions import PROGRAMS


def main() -> int:
    """Run one command; os.EX_UNAVAILABLE (69) means that no cluster can be had here."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make a cluster, or use the one that runs; print what to export")
    up.add_argument("--mount", metavar="FOLDER:PATH", action="append", default=[], help="show FOLDER in the workers")
    up.add_argument("--packages", action="store_true", help="show this Python's packages as /opt/site-packages")
    commands.add_parser("down", help="remove the cluster and, if it is ours, the Docker engine; caches stay")
    commands.add_parser("env", help="print what to export")
    build = commands.add_parser("build", help="build all programs and images in advance")
    build.add_argument("programs", nargs="*", metavar="PROGRAM", help="build these programs only, and no images")
    image = commands.add_parser("image", help="build an image and bring it onto the nodes")
    image.add_argument("tag")
    image.add_argument("--target", help="stage of the Dockerfile")
    image.add_argument("--context", type=Path, default=Path(), help="folder that is built from, by default this one")
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except UnavailableError as error:
        print(f"cluster: UNAVAILABLE: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    except CommandError as error:
        print(f"cluster: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncluster: interrupted; `up` starts over, `down` removes what is there", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "up":
            mounts = [kind.Mount(Path(host).resolve(), node) for host, node in _pairs(arguments.mount)]
            mounts += [kind.python_environment()] if arguments.packages else []
            _print(kind.up(mounts))
        case "down":
            kind.down()
        case "env":
            _print(_running())
        case "build":
            _build(arguments.programs)
        case "image":
            cluster = _running()
            cluster.docker.build(arguments.context, arguments.tag, target=arguments.target)
            cluster.load_image(arguments.tag)
    return 0


def _build(programs: list[str]) -> None:
    if unknown := set(programs) - set(PROGRAMS):
        sys.exit(f"cluster: no such program: {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    if programs:
        binaries.build(programs)
        return
    was_running = dockerd.init_pid() is not None
    engine = docker.start()
    try:
        binaries.build()
        if engine.mode is Mode.OFFLINE:
            images.ensure(engine)
    finally:
        if not was_running:
            dockerd.stop()


def _running() -> kind.Cluster:
    cluster = kind.current()
    if cluster is None:
        sys.exit("cluster: none runs: start one with `up`")
    return cluster


def _pairs(mounts: list[str]) -> list[tuple[str, str]]:
    return [(host, node) for host, _, node in (mount.rpartition(":") for mount in mounts)]


def _print(cluster: kind.Cluster) -> None:
    print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    if "DOCKER_HOST" in cluster.environment:
        print(f"export DOCKER_HOST={shlex.quote(cluster.environment['DOCKER_HOST'])}")
    folders = [str(folder) for folder in cluster.programs if str(folder) not in os.environ["PATH"].split(os.pathsep)]
    if folders:
        print(f'export PATH={shlex.quote(os.pathsep.join(folders))}:"$PATH"')


if __name__ == "__main__":
    sys.exit(main())
