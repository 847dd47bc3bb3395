"""What `make install` runs: brings tenfold and what it needs into the environment of this Python.

By uv, which takes a sixth of pip's time, at the versions of constraints.txt; by pip where uv can't
be had or fails. uv does not read pip's configuration, so what that says of places to have packages
from is passed on.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLDER = Path(__file__).resolve().parent.parent
CONSTRAINED = ["--constraint", str(FOLDER / "constraints.txt")]
WANTED = ["--group", "dev", *CONSTRAINED, "--editable", ".[all]"]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def main() -> int:
    """Install everything; the exit status of what failed last."""
    # Groups are known to pip from version 25.1 on.
    upgraded = run(*PIP, "install", "--quiet", "--upgrade", "pip>=25.1", *CONSTRAINED)
    if upgraded:
        return upgraded
    uv = Path(sys.executable).with_name("uv.exe" if os.name == "nt" else "uv")
    if not run(*PIP, "install", "--quiet", "uv", *CONSTRAINED):
        settings = uv_settings(pip_settings(), os.environ)
        command = [str(uv), "pip", "install", "--python", sys.executable, "--compile-bytecode"]
        if not run(*command, *WANTED, **settings):
            return run(sys.executable, "-m", "compileall", "-q", "src")
    sys.stdout.write("uv could not install it; pip does, which takes some minutes.\n")
    sys.stdout.flush()
    return run(*PIP, "install", *WANTED)


def run(*command: str, **settings: str) -> int:
    """Run `command` in the clone, in the environment of this process with `settings`."""
    try:
        return subprocess.run(command, cwd=FOLDER, env={**os.environ, **settings}).returncode
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error}\n")
        return 1


def pip_settings() -> dict[str, str]:
    """pip's configuration by the names of its options; the environment wins, as in pip."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True).stdout
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in found:
            found[section][name] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def uv_settings(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment by which uv looks where pip would; what is set for uv itself stays."""
    settings = {
        "UV_DEFAULT_INDEX": there(pip.get("index-url", "")),
        "UV_INDEX": there(pip.get("extra-index-url", "")),
        "UV_FIND_LINKS": there(pip.get("find-links", "")).replace(" ", ","),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_NO_INDEX": "1" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else "",
        "SSL_CERT_FILE": pip.get("cert", ""),
    }
    if settings["UV_INDEX"]:  # pip takes the best version of all indexes, not of the first.
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in settings.items() if value and name not in environment}


def there(places: str) -> str:
    """`places` without local ones that don't exist, which pip passes over and uv does not."""
    kept = []
    for place in places.split():
        parts = urlsplit(place)
        is_local = parts.scheme == "file" or "://" not in place
        path = unquote(parts.path) if parts.scheme == "file" else os.path.expanduser(place)
        if not is_local or os.path.exists(path):
            kept.append(place)
    return " ".join(kept)


if __name__ == "__main__":
    sys.exit(main())
