"""The launcher in the image of a Cloud Native Buildpack, for one process.

usage: launcher.py LAYERS_DIR PROCESS_TYPE COMMAND [ARG...]

It does what https://github.com/buildpacks/spec/blob/main/platform.md#launcher
says, as the lifecycle's own does: sets the layers' environment, runs the
programs in exec.d and then those in exec.d/PROCESS_TYPE, sorted, reads the
variables that they write to descriptor 3, to its end, and then becomes the
command. PROCESS_TYPE is empty for a command of the user.
"""

import os
import sys
import tomllib
from pathlib import Path


def set_environment(layer, process_type, env):
    if (layer / "bin").is_dir():
        env["PATH"] = f"{layer / 'bin'}:{env['PATH']}"
    dirs = [layer / "env", layer / "env.launch"]
    if process_type:
        dirs.append(layer / "env.launch" / process_type)
    for path in sorted(p for d in dirs if d.is_dir() for p in d.iterdir()):
        name, _, action = path.name.partition(".")
        if path.is_dir() or (action == "default" and env.get(name)):
            continue
        if action not in ("", "default", "override"):
            sys.exit(f"launcher.py does not know the action of {path}")
        env[name] = path.read_text()


def run(program, env):
    reader, writer = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 3),  # glibc lets the program inherit it
    ]
    pid = os.posix_spawn(program, [str(program)], env, file_actions=actions)
    os.close(writer)
    with open(reader, "rb") as variables:
        text = variables.read()  # to the end: a program that keeps 3 open blocks it
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        print(f"ERROR: failed to launch: exec.d: {program}: {code}", file=sys.stderr)
        sys.exit(82)
    for name, value in tomllib.loads(text.decode()).items():
        assert isinstance(value, str), (name, value)
        env[name] = value


def programs(directory):
    # As os.ReadDir in the lifecycle: a file instead of a directory is an error.
    try:
        return sorted(path for path in directory.iterdir() if path.is_symlink() or not path.is_dir())
    except FileNotFoundError:
        return []


def main():
    layers_dir, process_type, *command = sys.argv[1:]
    env = dict(os.environ)
    layers = sorted(path for path in Path(layers_dir).glob("*/*") if path.is_dir())
    for layer in layers:
        set_environment(layer, process_type, env)
    for layer in layers:
        for program in programs(layer / "exec.d"):
            run(program, env)
        if process_type:
            for program in programs(layer / "exec.d" / process_type):
                run(program, env)
    os.environ["PATH"] = env["PATH"]
    os.execvpe(command[0], command, env)


main()
