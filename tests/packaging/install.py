"""Installs each given archive in a clean environment of its own and runs smoke.py there. `make wheel` calls it.

    python tests/packaging/install.py dist/otkernels-*.whl dist/otkernels-*.tar.gz

The environment sees this interpreter's PyTorch through a .pth file, which shows packages but no editable installs: a
gigabyte is not installed again, and otkernels can come from the archive alone. A wheel is installed without a compiler
on the PATH, a source archive with one; smoke.py runs without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SMOKE = Path(__file__).with_name("smoke.py")


def try_out(archive: Path, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python, site = folder / "bin" / "python", next(folder.glob("lib/python*/site-packages"))
    (site / "torch_of_another_environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTKERNELS_", "PYTHON"))}
    bare = kept | {"PATH": str(folder / "bin")}
    building = os.environ if archive.suffix == ".gz" else bare
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", archive]
    subprocess.run(install, env=building, check=True)
    # from elsewhere: the checkout's own otkernels must not be found first
    subprocess.run([python, SMOKE], env=bare, cwd=folder, check=True)


def main(archives: list[str]) -> int:
    for archive in map(Path, archives):
        print(archive.name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                try_out(archive.resolve(), Path(folder).resolve())
            except subprocess.CalledProcessError as error:
                print(f"{archive.name}: {error}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
