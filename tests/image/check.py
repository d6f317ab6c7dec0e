#!/usr/bin/env python3
"""Builds docker/Dockerfile with buildah, and runs what comes out as a cluster would: its user, a root that is read only, no rights.

    check.py [--base IMAGE] [--dockerfile FILE] [--most_megabytes 600] [--keep FOLDER]

It needs root, and of Debian's packages buildah and, unless --base names an image that stands in for debian:12-slim, debootstrap: then the base is
made with this machine's own settings of apt, its certificates and pip's, so that the build reaches what this machine reaches. The build takes
some 15 minutes of two cores and 20 GB of TMPDIR. docker/setup has brought the model that answers, and the Python environment to run this in.

The image is the one of the working tree. What is checked: it is no more than --most_megabytes above its base; as its own user, on a root that it
cannot write and without capabilities, it loads a model that is mounted read-only, generates through gRPC and keeps what is stored; told to
stop it ends the answer that is on its way, and then with 0. --keep leaves the storage of buildah in FOLDER, and goes on from the image that is there.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(
    os.environ.get("VALUESCOPE_CACHE", pathlib.Path.home() / ".cache" / "valuescope")
)
MODEL = "SmolLM2-135M-Instruct"
DRAINED = 100  # tokens of the answer that is on its way when the server is told to stop
BASE, IMAGE = "localhost/valuescope-base", "localhost/valuescope"

sys.path.insert(0, str(ROOT / "client" / "python"))
BEGAN = time.monotonic()


def say(line):
    print(f"{time.monotonic() - BEGAN:6.1f} s  {line}", flush=True)


def run(*command, **options):
    """What a program that has to succeed prints."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-8000:]}"
    return done.stdout


class Buildah:
    """Images in a folder of their own, by means that need no kernel's file system and no engine."""

    def __init__(self, folder):
        self._options = ["--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs"]  # fmt: skip

    def run(self, command, *arguments, **options):
        return run("buildah", *self._options, command, *arguments, **options).strip()

    def has(self, image):
        images = json.loads(self.run("images", "--json") or "[]")
        return any(name.split(":")[0] == image for one in images for name in one.get("names") or [])

    @contextlib.contextmanager
    def mounted(self, image):
        """A root of the image's own to read and to change."""
        container = self.run("from", "--pull-never", image)
        try:
            yield pathlib.Path(self.run("mount", container))
        finally:
            self.run("rm", container)

    def configuration(self, image):
        return json.loads(self.run("inspect", "--type", "image", image))["OCIv1"]["config"]


def apt_settings():
    """What this machine's apt goes by to reach a mirror, as one file of settings."""
    wanted = ("Acquire::", "APT::Get::AllowUnauthenticated")
    lines = run("apt-config", "dump").splitlines()
    return "".join(line + "\n" for line in lines if line.startswith(wanted))


def mirror_of(release):
    """From where this machine installs that release."""
    told = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")  # fmt: skip
    found = [line.split()[0] for line in told.splitlines() if line.split()[1:] == [release]]
    assert found, f"apt knows no mirror of {release}"
    return found[0]


def make_base(buildah):
    """A minimal Debian 12 as an image, which reaches what this machine reaches."""
    container = buildah.run("from", "scratch")
    root = pathlib.Path(buildah.run("mount", container))
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root, mirror_of("bookworm"))  # fmt: skip
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    for name in ("sources.list", "sources.list.d", "auth.conf.d", "keyrings", "trusted.gpg.d"):
        here = pathlib.Path("/etc/apt") / name
        if here.is_dir():
            shutil.copytree(here, root / "etc/apt" / name, dirs_exist_ok=True)
        elif here.exists():
            shutil.copy(here, root / "etc/apt" / name)
    (root / "etc/apt/apt.conf.d/99machine").write_text(apt_settings())
    for file in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if pathlib.Path(file).exists():
            shutil.copy(file, root / file.lstrip("/"))
    cargo = pathlib.Path.home() / ".cargo" / "config.toml"
    if cargo.exists():
        (root / "root/.cargo").mkdir(parents=True, exist_ok=True)
        shutil.copy(cargo, root / "root/.cargo")
    # As images of Debian do.
    shutil.rmtree(root / "var/lib/apt/lists")
    for archive in (root / "var/cache/apt").rglob("*.*"):
        if archive.is_file():
            archive.unlink()
    buildah.run("commit", "--rm", container, BASE)


def build(buildah, base, dockerfile):
    buildah.run(
        "build", "--isolation", "chroot", "--pull-never", "--layers=false", "--tag", IMAGE,
        "--build-arg", f"DEBIAN={base}", "--ignorefile", ROOT / "docker/Dockerfile.dockerignore",
        "--file", dockerfile, ROOT,
    )  # fmt: skip


def bytes_in(root):
    return int(run("du", "--summarize", "--one-file-system", "--bytes", root).split()[0])


def largest_in(root, count=8):
    files = [(path.stat().st_size, path.relative_to(root)) for path in root.rglob("*")
             if path.is_file() and not path.is_symlink()]  # fmt: skip
    return ", ".join(f"{path} {size / 1e6:.0f}" for size, path in sorted(files, reverse=True)[:count])  # fmt: skip


def check_size(buildah, base, most_megabytes):
    with buildah.mounted(base) as root:
        below = bytes_in(root)
    with buildah.mounted(IMAGE) as root:
        whole = bytes_in(root)
        say(f"megabytes of its largest files: {largest_in(root)}")
    above = (whole - below) / 1e6
    say(f"the image: {whole / 1e6:.0f} MB, {above:.0f} MB above its base")
    assert above <= most_megabytes, f"{above:.0f} MB above the base, allowed are {most_megabytes}"


class Container:
    """The image's program in a root of its own that nobody can write, its state in a volume and models in one that is read only. It sees
    this machine's network and processes: what shuts those off is the engine's, and not the image's.
    """

    # In a name space of mounts that ends with the program; every step becomes the next one, so that signals reach the program.
    _START = """
        set -eu
        root=$1 user=$2 state=$3 models=$4; shift 4
        mount --make-rprivate /
        mount --bind "$root" "$root"
        mount --bind "$state" "$root/var/lib/valuescope"
        mount --bind "$models" "$root/models"
        mount -o remount,bind,ro "$root/models"
        mount --rbind /proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -o remount,bind,ro "$root"
        exec chroot "$root" setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups --no-new-privs --inh-caps=-all \\
          --bounding-set=-all -- "$@"
    """

    def __init__(self, root, configuration, state, models, log, *arguments):
        self._log = log
        (root / "models").mkdir(exist_ok=True)  # as an engine makes the place of a volume
        user = configuration["User"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), user
        owner, group = map(int, user.split(":"))
        os.chown(state, owner, group)
        environment = dict(one.split("=", 1) for one in configuration["Env"])
        self._process = subprocess.Popen(
            [
                *("unshare", "--mount", "bash", "-c", self._START, "start"),
                *(str(word) for word in (root, user, state, models)),
                *configuration["Entrypoint"],
                *arguments,
            ],
            env=environment,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            text=True,
        )

    def address(self):
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), f"{line!r}; log: {self._log.read_text()[-4000:]}"
        return line.split()[-1]

    def status(self):
        """What the kernel says of the program: its user, its capabilities."""
        text = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    def tell(self, told):
        self._process.send_signal(getattr(signal, told))

    def ended(self):
        """Its exit code."""
        return self._process.wait(120)

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def check_rights(container):
    status = container.status()
    assert set(status["Uid"].split()) == {"10001"}, status["Uid"]
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
        assert int(status[capabilities], 16) == 0, (capabilities, status[capabilities])
    mounts = (pathlib.Path(f"/proc/{status['Pid'].strip()}/mounts")).read_text().splitlines()
    flags = {line.split()[1]: line.split()[3].split(",") for line in mounts}
    assert "ro" in flags["/"] and "ro" in flags["/models"], (flags["/"], flags["/models"])
    assert "rw" in flags["/var/lib/valuescope"], flags
    say("it runs as user 10001 without capabilities, on a root that is read only")


def check_drain(client, container, told):
    """An answer that is on its way when the server is told to stop comes to its end, and then the server does."""
    events = client.stream(f"models/{MODEL}", [1, 2, 3], max_tokens=DRAINED, ignore_eos=True)
    tokens = list(next(events).delta.token_ids)
    container.tell(told)
    for event in events:
        tokens += event.delta.token_ids
    assert len(tokens) == DRAINED, len(tokens)
    code = container.ended()
    assert code == 0, f"exit code {code} behind {told}"
    say(f"behind {told} it ended an answer of {DRAINED} tokens, then with 0")


def check_service(buildah, folder):
    import valuescope as vs

    configuration = buildah.configuration(IMAGE)
    state = folder / "state"
    state.mkdir(exist_ok=True)
    stop = configuration.get("StopSignal", "SIGTERM")
    flags = [f"--models={MODEL}", "--insecure", f"--listen=127.0.0.1:{free_port()}", "--metrics_listen=127.0.0.1:0"]  # fmt: skip
    made = []
    with buildah.mounted(IMAGE) as root:
        for run_number in range(2):
            began = time.monotonic()
            container = Container(
                root, configuration, state, CACHE / "models", folder / "log", *flags
            )
            try:
                with vs.connect(container.address(), timeout=300, wait=60) as client:
                    client.wait_until_ready(f"models/{MODEL}", timeout=300)
                    ready = time.monotonic() - began
                    check_rights(container)
                    answer = client.generate(
                        f"models/{MODEL}", vs.chat("What is a vector?", system=""), max_tokens=16, temperature=0.0
                    )  # fmt: skip
                    if run_number == 0:
                        stored = client.write_artifact(b"of the first run").name
                    assert client.read_artifact(stored) == b"of the first run"
                    made.append(answer.text)
                    check_drain(client, container, stop)
            finally:
                container.kill()
            say(f"ready after {ready:.1f} s, answered {answer.text!r}")
    assert made[0] and made[0] == made[1], made
    say("a second start over the same volume finds what the first one stored")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base")
    parser.add_argument("--dockerfile", type=pathlib.Path, default=ROOT / "docker" / "Dockerfile")
    parser.add_argument("--most_megabytes", type=float, default=600)
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        sys.exit("check: run as root, with Debian's packages buildah and debootstrap")
    with contextlib.ExitStack() as stack:
        folder = options.keep or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        buildah = Buildah(folder)
        base = options.base or BASE
        if not options.base and not buildah.has(BASE):
            make_base(buildah)
            say("a base image of Debian 12 is made")
        if not (options.keep and buildah.has(IMAGE)):
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            build(buildah, base, options.dockerfile)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            say(f"built in {time.monotonic() - began:.0f} s, {spent:.0f} s of processors")
        check_size(buildah, base, options.most_megabytes)
        check_service(buildah, folder)
    say("the image is as it should be")


if __name__ == "__main__":
    main()
