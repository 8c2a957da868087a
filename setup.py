"""Keep directories that are symbolic links as links in the source distribution.

setuptools would copy what they lead to, and a change to plugins/ or contrib/ in the unpacked
sources would then not reach the wheel. Everything else is in pyproject.toml.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

LINKS = (Path("schedhook_plugins"), Path("schedhook/cli/setup/contrib"))


class SdistWithLinks(sdist):
    """The `sdist` command, which keeps LINKS."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Fill the directory that becomes the archive: with `files`, and with the links."""
        links = [link for link in LINKS if link.is_symlink()]
        linked = {name for name in files if any(link in Path(name).parents for link in links)}
        super().make_release_tree(base_dir, [name for name in files if name not in linked])
        for link in links:
            Path(base_dir, link).symlink_to(link.readlink())


setup(cmdclass={"sdist": SdistWithLinks})
