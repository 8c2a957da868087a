from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class Schedhook(PythonPackage):
    """Makes a batch job's memory follow the job between NUMA nodes, for Slurm and OpenPBS.

    `schedhook setup`, run as root on each host, connects it to the scheduler there.
    """

    homepage = "https://github.com/schedhook/schedhook"
    git = "https://github.com/schedhook/schedhook.git"

    license("MIT", checked_by="schedhook")

    version("main", branch="main")
    version("0.1.0", tag="v0.1.0")

    variant("metrics", default=True, description="Export metrics to Prometheus")
    variant("cluster", default=False, description="Move jobs on other hosts through ClusterShell")

    depends_on("c", type="build")
    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-setuptools@77:", type="build")

    depends_on("py-click@8.1.3:", type=("build", "run"))
    depends_on("py-pluggy@1.0:", type=("build", "run"))
    depends_on("py-rich@13.3.1:", type=("build", "run"))
    depends_on("py-structlog@22.3:", type=("build", "run"))
    depends_on("py-tenacity@8.2.1:", type=("build", "run"))
    depends_on("py-prometheus-client@0.16:", type=("build", "run"), when="+metrics")
    depends_on("py-clustershell@1.9:", type=("build", "run"), when="+cluster")

    # Only Linux has migrate_pages(2) and move_pages(2).
    requires("platform=linux")

    import_modules = ["schedhook", "schedhook.cli.main", "schedhook_plugins"]
